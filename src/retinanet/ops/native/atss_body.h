/* Write the candidates of a box to anchor and iou, and claim its positives. */
static void RN_FN(assign_box)(const atss_t *m, int64_t row, int64_t g, uint64_t *keys, int32_t *anchor, float *iou,
                              int64_t *claims) {
    const float *box = m->boxes + 4 * row;
    const float x = (box[0] + box[2]) / 2, y = (box[1] + box[3]) / 2;
    int64_t found = 0, first_position = 0, first_anchor = 0, sum = 0, squares = 0;
    for (int64_t l = 0; l < m->levels; l++) {
        const int64_t count = m->positions[2 * l], each = m->positions[2 * l + 1];
        const int64_t selected = count < m->candidates ? count : m->candidates;
        for (int64_t i = 0; i < count; i++) {
            const double dx = m->x[first_position + i] - x, dy = m->y[first_position + i] - y;
            const float squared = (float)(dx * dx + dy * dy);
            keys[i] = (uint64_t)bits_of(squared == squared ? squared : INFINITY) << 32 | (uint64_t)i;
        }
        if (selected < count) rn_select(keys, count, selected);
        sort_few(keys, selected);
        for (int64_t i = 0; i < selected; i++) {
            const int64_t a = first_anchor + (int64_t)(keys[i] & 0xffffffffu) * each;
            for (int64_t c = 0; c < each; c++, found++) {
                anchor[found] = (int32_t)(a + c);
                iou[found] = iou_of(m->anchors + 4 * (a + c), m->anchor_area[a + c], box, m->box_area[row]);
                const int64_t steps = (int64_t)rintf(iou[found] * IOU_STEPS);
                sum += steps;
                squares += steps * steps;
            }
        }
        first_position += count;
        first_anchor += count * each;
    }
    if (!found) return;
    const int64_t pairs = found > 1 ? found * (found - 1) : 1;
    const double variance = (double)(found * squares - sum * sum) / (double)pairs;
    const double threshold = (double)sum / (double)found + sqrt(variance);
    for (int64_t j = 0; j < found; j++) {
        if (!(iou[j] > 0.0f) || rintf(iou[j] * IOU_STEPS) < threshold) continue;
        const float *own = m->anchors + 4 * (int64_t)anchor[j];
        const float own_x = rintf((own[0] + own[2]) * HALF_CENTRE_STEPS) * CENTRE_STEP;
        const float own_y = rintf((own[1] + own[3]) * HALF_CENTRE_STEPS) * CENTRE_STEP;
        if (!((own_x > box[0]) & (own_x < box[2]) & (own_y > box[1]) & (own_y < box[3]))) continue;
        const int64_t claim = claim_of(iou[j], g);
        if (claim > claims[anchor[j]]) claims[anchor[j]] = claim;
    }
}

static void RN_FN(assign_image)(atss_t *m, int64_t n) {
    const int64_t first = m->starts[n], boxes = m->starts[n + 1] - first;
    if (!boxes) return;
    const size_t kept = (size_t)((m->low_quality ? boxes : 1) * m->per_box);
    atss_scratch s = {
        .keys = malloc((size_t)(m->largest_level + 1) * sizeof(uint64_t)),
        .anchor = malloc(kept * sizeof(int32_t)),
        .iou = malloc(kept * sizeof(float)),
    };
    uint8_t *reached = malloc((size_t)boxes);
    int64_t *choice = malloc((size_t)boxes * sizeof(int64_t)), *claims = m->claims + n * m->anchor_count;
    if (s.keys && s.anchor && s.iou && reached && choice) {
        for (int64_t g = 0; g < boxes; g++) {
            const int64_t at = m->low_quality ? g * m->per_box : 0;
            if (m->crowd[first + g]) continue;
            RN_FN(assign_box)(m, first + g, g, s.keys, s.anchor + at, s.iou + at, claims);
        }
        if (m->low_quality)
            claim_for_unreached(boxes, m->per_box, s.anchor, s.iou, m->crowd + first, m->anchor_count, reached, choice,
                                claims);
    } else {
        __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED);
    }
    free(s.keys);
    free(s.anchor);
    free(s.iou);
    free(reached);
    free(choice);
}
