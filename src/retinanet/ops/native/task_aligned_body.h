/* Find the candidates of a box: the anchors inside of it with the largest metric and, for the fallback, the anchors
   with the largest IoU. Claim the anchors with a metric above 0. */
static void RN_FN(align_box)(const align_t *m, int64_t n, int64_t row, int64_t g, uint64_t *by_metric, uint64_t *by_iou,
                             int64_t *claims) {
    const int64_t A = m->anchor_count, J = m->candidates, image = m->predicted_images > 1 ? n : 0;
    const float *box = m->boxes + 4 * row, area = m->box_area[row];
    const float *predicted = m->predicted + 4 * image * A, *predicted_area = m->predicted_area + image * A;
    const float *logits = m->logits ? m->logits + n * A * m->classes + m->labels[row] : NULL;
    memset(by_metric, 0, (size_t)J * sizeof(uint64_t));
    if (by_iou) memset(by_iou, 0, (size_t)J * sizeof(uint64_t));
    for (int64_t a = 0; a < A; a++) {
        const int inside = (m->x[a] > box[0]) & (m->x[a] < box[2]) & (m->y[a] > box[1]) & (m->y[a] < box[3]);
        if (!inside && !by_iou) continue;
        const float iou = iou_of(predicted + 4 * a, predicted_area[a], box, area);
        if (!(iou > 0.0f)) continue;
        if (by_iou) keep_largest(by_iou, J, key_of(iou, a));
        if (!inside) continue;
        const float cube = iou * iou * iou;
        float metric = cube * cube;
        if (logits) metric *= probability_of(logits[a * m->classes]);
        if (metric > 0.0f) keep_largest(by_metric, J, key_of(metric, a)); /* false for NaN */
    }
    for (int64_t j = 0; j < J && by_metric[j]; j++) {
        const int64_t a = anchor_of(by_metric[j]);
        const int64_t claim = claim_of(iou_of(predicted + 4 * a, predicted_area[a], box, area), g);
        if (claim > claims[a]) claims[a] = claim;
    }
}

static void RN_FN(align_image)(align_t *m, int64_t n) {
    const int64_t first = m->starts[n], boxes = m->starts[n + 1] - first, J = m->candidates;
    if (!boxes) return;
    const size_t kept = m->low_quality ? (size_t)(boxes * J) : 1;
    uint64_t *keys = malloc((size_t)(2 * J) * sizeof(uint64_t));
    int32_t *anchor = calloc(kept, sizeof(int32_t));
    float *iou = calloc(kept, sizeof(float));
    uint8_t *reached = malloc((size_t)boxes);
    int64_t *choice = malloc((size_t)boxes * sizeof(int64_t)), *claims = m->claims + n * m->anchor_count;
    if (keys && anchor && iou && reached && choice) {
        for (int64_t g = 0; g < boxes; g++) {
            if (m->crowd[first + g]) continue;
            uint64_t *by_iou = m->low_quality ? keys + J : NULL;
            RN_FN(align_box)(m, n, first + g, g, keys, by_iou, claims);
            for (int64_t j = 0; by_iou && j < J && by_iou[j]; j++) {
                anchor[g * J + j] = (int32_t)anchor_of(by_iou[j]);
                iou[g * J + j] = value_of(by_iou[j]);
            }
        }
        if (m->low_quality)
            claim_for_unreached(boxes, J, anchor, iou, m->crowd + first, m->anchor_count, reached, choice, claims);
    } else {
        __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED);
    }
    free(keys);
    free(anchor);
    free(iou);
    free(reached);
    free(choice);
}
