/* The smaller or larger of two numbers; the second if one is NaN, as in SSE. So NaN never enters a bound. */
static inline float RN_FN(smaller)(float a, float b) { return a < b ? a : b; }
static inline float RN_FN(larger)(float a, float b) { return a > b ? a : b; }
static inline float RN_FN(above_zero)(float a) { return a > 0.0f ? a : 0.0f; }

static inline void RN_FN(load_block)(const match_t *m, int64_t b, block_t *k) {
    k->first = b * BLOCK;
    const int64_t left = m->anchor_count - k->first;
    k->count = left < BLOCK ? (int)left : BLOCK;
    const float *a = m->anchors + 4 * k->first;
    for (int i = 0; i < k->count; i++) {
        k->x1[i] = a[4 * i];
        k->y1[i] = a[4 * i + 1];
        k->x2[i] = a[4 * i + 2];
        k->y2[i] = a[4 * i + 3];
    }
    const int tiles = (k->count + TILE - 1) / TILE;
    for (int i = k->count; i < tiles * TILE; i++) { /* padding that overlaps no box */
        k->x1[i] = k->y1[i] = INFINITY;
        k->x2[i] = k->y2[i] = -INFINITY;
    }
    for (int i = 0; i < tiles * TILE; i++) k->area[i] = box_side(k->x1[i], k->x2[i]) * box_side(k->y1[i], k->y2[i]);
    for (int t = 0; t < tiles; t++) {
        float low_x[LANES], low_y[LANES], high_x[LANES], high_y[LANES];
        for (int l = 0; l < LANES; l++) {
            low_x[l] = low_y[l] = INFINITY;
            high_x[l] = high_y[l] = -INFINITY;
        }
        for (int i = t * TILE; i < (t + 1) * TILE; i += LANES)
            for (int l = 0; l < LANES; l++) {
                low_x[l] = RN_FN(smaller)(k->x1[i + l], low_x[l]);
                low_y[l] = RN_FN(smaller)(k->y1[i + l], low_y[l]);
                high_x[l] = RN_FN(larger)(k->x2[i + l], high_x[l]);
                high_y[l] = RN_FN(larger)(k->y2[i + l], high_y[l]);
            }
        for (int l = 1; l < LANES; l++) {
            low_x[0] = RN_FN(smaller)(low_x[l], low_x[0]);
            low_y[0] = RN_FN(smaller)(low_y[l], low_y[0]);
            high_x[0] = RN_FN(larger)(high_x[l], high_x[0]);
            high_y[0] = RN_FN(larger)(high_y[l], high_y[0]);
        }
        k->low_x[t] = low_x[0];
        k->low_y[t] = low_y[0];
        k->high_x[t] = high_x[0];
        k->high_y[t] = high_y[0];
    }
}

/* Write to `list` which of the boxes [from, to) overlap the hull of the tiles [t, t_end) with an area above 0, counted
   from `from`. Return their number. */
static inline int RN_FN(touching)(const block_t *k, int t, int t_end, const boxes_t *b, int64_t from, int64_t to,
                                  int32_t *list) {
    float low_x = k->low_x[t], low_y = k->low_y[t], high_x = k->high_x[t], high_y = k->high_y[t];
    for (t++; t < t_end; t++) {
        low_x = RN_FN(smaller)(k->low_x[t], low_x);
        low_y = RN_FN(smaller)(k->low_y[t], low_y);
        high_x = RN_FN(larger)(k->high_x[t], high_x);
        high_y = RN_FN(larger)(k->high_y[t], high_y);
    }
    int count = 0;
    for (int64_t i = from; i < to; i++) {
        list[count] = (int32_t)(i - from);
        count += (b->x1[i] < high_x) & (b->x2[i] > low_x) & (b->y1[i] < high_y) & (b->y2[i] > low_y);
    }
    return count;
}

static inline int RN_FN(touches)(const block_t *k, int t, const boxes_t *b, int64_t i) {
    return (b->x1[i] < k->high_x[t]) & (b->x2[i] > k->low_x[t]) & (b->y1[i] < k->high_y[t]) & (b->y2[i] > k->low_y[t]);
}

/* Return the common area of anchor i of the block and a box. */
static inline float RN_FN(common_area)(const block_t *k, int i, float x1, float y1, float x2, float y2) {
    const float width = RN_FN(smaller)(k->x2[i], x2) - RN_FN(larger)(k->x1[i], x1);
    const float height = RN_FN(smaller)(k->y2[i], y2) - RN_FN(larger)(k->y1[i], y1);
    return RN_FN(above_zero)(width) * RN_FN(above_zero)(height);
}

static inline void RN_FN(set_match)(const match_t *m, int64_t n, int64_t a, int64_t object) {
    const int64_t at = n * m->anchor_count + a, g = m->objects.index[object];
    const int64_t row = m->starts[n] + g;
    m->positive[at] = 1;
    m->ignored[at] = 0;
    m->matched[at] = g;
    m->out_labels[at] = m->labels[row];
    memcpy(m->out_boxes + 4 * at, m->boxes + 4 * row, 4 * sizeof(float));
}

/* Update the highest IoU of an object with `highest`, its highest IoU in a block. If the IoUs are equal, extend the
   range of blocks that reach the highest IoU. */
static inline void RN_FN(note_best)(uint64_t *best, float highest, uint64_t block) {
    uint32_t bits;
    memcpy(&bits, &highest, sizeof bits); /* positive floats have the order of their bits */
    uint64_t old = __atomic_load_n(best, __ATOMIC_RELAXED), new;
    do {
        const uint32_t old_bits = (uint32_t)(old >> 32);
        if (bits < old_bits) return;
        uint64_t first = block, last = block;
        if (bits == old_bits) {
            const uint64_t f = (old >> 16) & 0xffff, l = old & 0xffff;
            first = f < block ? f : block;
            last = l > block ? l : block;
        }
        new = (uint64_t)bits << 32 | first << 16 | last;
    } while (!__atomic_compare_exchange_n(best, &old, new, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

static inline void RN_FN(overlaps)(const match_t *m, const block_t *k, int64_t b, int64_t n, float *best_iou,
                                   int32_t *best_object, int tiles, const int low_quality) {
    const boxes_t *o = &m->objects;
    int32_t list[CHUNK];
    float highest[CHUNK];
    for (int64_t from = o->starts[n]; from < o->starts[n + 1]; from += CHUNK) {
        const int64_t to = from + CHUNK < o->starts[n + 1] ? from + CHUNK : o->starts[n + 1];
        const int count = RN_FN(touching)(k, 0, tiles, o, from, to, list);
        if (!count) continue;
        for (int j = 0; j < count; j++) highest[j] = 0.0f;
        for (int t = 0; t < tiles; t++) {
            float *restrict iou_T = best_iou + t * TILE;
            int32_t *restrict object_T = best_object + t * TILE;
            for (int j = 0; j < count; j++) {
                const int64_t g = from + list[j];
                if (!RN_FN(touches)(k, t, o, g)) continue;
                const float x1 = o->x1[g], y1 = o->y1[g], x2 = o->x2[g], y2 = o->y2[g], area = o->area[g];
                const int32_t number = (int32_t)g;
                float most[LANES];
                if (low_quality)
                    for (int l = 0; l < LANES; l++) most[l] = 0.0f;
                for (int i = 0; i < TILE; i += LANES)
                    for (int l = 0; l < LANES; l++) {
                        const int at = i + l;
                        const float common = RN_FN(common_area)(k, t * TILE + at, x1, y1, x2, y2);
                        const float iou = common / (k->area[t * TILE + at] + area - common);
                        object_T[at] = iou > iou_T[at] ? number : object_T[at];
                        iou_T[at] = RN_FN(larger)(iou, iou_T[at]);
                        if (low_quality) most[l] = RN_FN(larger)(iou, most[l]);
                    }
                if (low_quality) {
                    for (int l = 1; l < LANES; l++) most[0] = RN_FN(larger)(most[l], most[0]);
                    highest[j] = RN_FN(larger)(most[0], highest[j]);
                }
            }
        }
        if (low_quality)
            for (int j = 0; j < count; j++)
                if (highest[j] > 0.0f) RN_FN(note_best)(m->best + from + list[j], highest[j], (uint64_t)(b >> m->shift));
    }
}

static inline void RN_FN(in_crowds)(const match_t *m, const block_t *k, int64_t n, uint8_t *in_crowd, int tiles) {
    const boxes_t *c = &m->crowds;
    for (int64_t g = c->starts[n]; g < c->starts[n + 1]; g++)
        for (int t = 0; t < tiles; t++) {
            if (!RN_FN(touches)(k, t, c, g)) continue;
            for (int i = t * TILE; i < (t + 1) * TILE; i++) {
                const float common = RN_FN(common_area)(k, i, c->x1[g], c->y1[g], c->x2[g], c->y2[g]);
                /* A crowd region with a NaN coordinate has no common area with any anchor, as in match_torch. */
                in_crowd[i] |= (common > 0.0f) & (common >= m->positive_iou * k->area[i]) & (c->area[g] == c->area[g]);
            }
        }
}

static void RN_FN(match_block)(const match_t *m, int64_t b) {
    block_t k;
    float best_iou[BLOCK];
    int32_t best_object[BLOCK];
    uint8_t in_crowd[BLOCK], positive[BLOCK];
    RN_FN(load_block)(m, b, &k);
    const int tiles = (k.count + TILE - 1) / TILE;
    for (int64_t n = 0; n < m->images; n++) {
        const int64_t at = n * m->anchor_count + k.first;
        memset(best_iou, 0, sizeof best_iou);
        memset(in_crowd, 0, sizeof in_crowd);
        if (m->low_quality)
            RN_FN(overlaps)(m, &k, b, n, best_iou, best_object, tiles, 1);
        else
            RN_FN(overlaps)(m, &k, b, n, best_iou, best_object, tiles, 0);
        if (m->crowds.starts[n] < m->crowds.starts[n + 1]) RN_FN(in_crowds)(m, &k, n, in_crowd, tiles);
        memset(m->out_labels + at, 0, (size_t)k.count * sizeof(int64_t));
        memset(m->matched + at, 0, (size_t)k.count * sizeof(int64_t));
        memset(m->out_boxes + 4 * at, 0, 4 * (size_t)k.count * sizeof(float));
        uint8_t *restrict ignored = m->ignored + at;
        for (int i = 0; i < k.count; i++) {
            positive[i] = (best_iou[i] >= m->positive_iou) & (best_iou[i] > 0.0f);
            ignored[i] = ((best_iou[i] >= m->negative_iou) | in_crowd[i]) & !positive[i];
        }
        memcpy(m->positive + at, positive, (size_t)k.count);
        if (m->low_quality) memcpy(m->best_object + at, best_object, (size_t)k.count * sizeof(int32_t));
        for (int i = 0; i < k.count; i += 8) {
            uint64_t some = 0;
            memcpy(&some, positive + i, k.count - i < 8 ? (size_t)(k.count - i) : 8);
            if (!some) continue;
            for (int j = i; j < i + 8 && j < k.count; j++)
                if (positive[j]) RN_FN(set_match)(m, n, k.first + j, best_object[j]);
        }
    }
}

/* Second pass for low_quality: make the anchors positive whose IoU with an object is the highest IoU of that object. */
static void RN_FN(match_best)(const match_t *m, int64_t b) {
    const boxes_t *o = &m->objects;
    block_t k;
    int loaded = 0;
    const uint64_t here = (uint64_t)(b >> m->shift);
    for (int64_t n = 0; n < m->images; n++)
        for (int64_t g = o->starts[n]; g < o->starts[n + 1]; g++) {
            const uint64_t best = m->best[g];
            if (!(best >> 32) || here < ((best >> 16) & 0xffff) || here > (best & 0xffff)) continue;
            if (!loaded) RN_FN(load_block)(m, b, &k);
            loaded = 1;
            const uint32_t bits = (uint32_t)(best >> 32);
            float highest;
            memcpy(&highest, &bits, sizeof highest);
            const float x1 = o->x1[g], y1 = o->y1[g], x2 = o->x2[g], y2 = o->y2[g], area = o->area[g];
            for (int t = 0; t < (k.count + TILE - 1) / TILE; t++) {
                if (!RN_FN(touches)(&k, t, o, g)) continue;
                int equal = 0;
                for (int i = t * TILE; i < (t + 1) * TILE; i++) {
                    const float common = RN_FN(common_area)(&k, i, x1, y1, x2, y2);
                    equal |= common / (k.area[i] + area - common) == highest;
                }
                if (!equal) continue;
                for (int i = t * TILE; i < (t + 1) * TILE && i < k.count; i++) {
                    const float common = RN_FN(common_area)(&k, i, x1, y1, x2, y2);
                    const int64_t at = n * m->anchor_count + k.first + i;
                    if (common / (k.area[i] + area - common) == highest && !m->positive[at])
                        RN_FN(set_match)(m, n, k.first + i, m->best_object[at]);
                }
            }
        }
}

