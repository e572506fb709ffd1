/* scan_float and scan_short store in the buffer which of `count` scores are above its threshold. The first score has
   the index `first` within its level. A whole segment without such a score is skipped by one vector comparison. */
static void RN_FN(scan_float)(const float *x, int64_t count, int64_t first, const job *j, buffer *b) {
    float threshold = b->threshold;
    for (int64_t i = 0; i < count; i += SEGMENT) {
        const int left = count - i < SEGMENT ? (int)(count - i) : SEGMENT;
        if (left == SEGMENT) {
            int some = 0;
            for (int l = 0; l < SEGMENT; l++) some |= x[i + l] > threshold;
            if (!some) continue;
        }
        if (b->count + SEGMENT > j->room) {
            compact(b, j->k);
            threshold = b->threshold;
        }
        for (int l = 0; l < left; l++)
            if (x[i + l] > threshold) b->keys[b->count++] = rn_key(x[i + l], (uint32_t)(first + i + l));
    }
}

static void RN_FN(scan_short)(const uint16_t *x, int64_t count, int64_t first, const job *j, buffer *b) {
    const int16_t infinity = j->type == FLOAT16 ? 0x7c00 : 0x7f80; /* only NaN has a higher order */
    int16_t lowest = first_above(b->threshold, j->type);
    for (int64_t i = 0; i < count; i += SEGMENT) {
        const int left = count - i < SEGMENT ? (int)(count - i) : SEGMENT;
        if (left == SEGMENT) {
            int16_t some = 0;
            for (int l = 0; l < SEGMENT; l++) {
                const int16_t order = short_order(x[i + l]);
                some |= (int16_t)((order >= lowest) & (order <= infinity));
            }
            if (!some) continue;
        }
        if (b->count + SEGMENT > j->room) {
            compact(b, j->k);
            lowest = first_above(b->threshold, j->type);
        }
        for (int l = 0; l < left; l++) {
            const int16_t order = short_order(x[i + l]);
            if (order >= lowest && order <= infinity)
                b->keys[b->count++] = rn_key(short_value(x[i + l], j->type), (uint32_t)(first + i + l));
        }
    }
}
