typedef float RN_FN(vec) __attribute__((vector_size(4 * RN_LANES), aligned(4), may_alias));

#if RN_LANES == 16
#define ROWS 14 /* 28 sums, 2 vectors of the panel and 1 value use 31 of 32 registers */
#else
#define ROWS 6 /* 12 sums, 2 vectors of the panel and 1 value use 15 of 16 registers */
#endif
#define AT(p) (*(const RN_FN(vec) *)(p))
#define TO(p) (*(RN_FN(vec) *)(p))

/* Compute m[r][0..PANEL) = sum over i of v[r][i] u[i][0..PANEL) for ROWS rows. */
static void RN_FN(product)(const float *restrict v, int64_t in, const float *restrict u, float *restrict m,
                           int64_t stride) {
    for (int half = 0; half < PANEL; half += 2 * RN_LANES) {
        RN_FN(vec) sum[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = (RN_FN(vec)){0};
        for (int64_t i = 0; i < in; i++) {
            const RN_FN(vec) left = AT(u + i * PANEL + half), right = AT(u + i * PANEL + half + RN_LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const float value = v[r * in + i];
                sum[r][0] += value * left;
                sum[r][1] += value * right;
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            TO(m + r * stride + half) = sum[r][0];
            TO(m + r * stride + half + RN_LANES) = sum[r][1];
        }
    }
}

/* Compute B' d B of one tile: 16 rows of `in` channels at a distance of `step`. */
static void RN_FN(forward)(const float *const d[16], int64_t in, float *v, int64_t step) {
    for (int64_t c = 0; c < in; c += RN_LANES) {
        RN_FN(vec) t[16];
#pragma GCC unroll 4
        for (int x = 0; x < 4; x++) {
            const RN_FN(vec) d0 = AT(d[x] + c), d1 = AT(d[4 + x] + c), d2 = AT(d[8 + x] + c), d3 = AT(d[12 + x] + c);
            t[x] = d0 - d2;
            t[4 + x] = d1 + d2;
            t[8 + x] = d2 - d1;
            t[12 + x] = d1 - d3;
        }
#pragma GCC unroll 4
        for (int y = 0; y < 4; y++) {
            const RN_FN(vec) *s = t + 4 * y;
            float *to = v + 4 * y * step + c;
            TO(to) = s[0] - s[2];
            TO(to + step) = s[1] + s[2];
            TO(to + 2 * step) = s[2] - s[1];
            TO(to + 3 * step) = s[1] - s[3];
        }
    }
}

static inline RN_FN(vec) RN_FN(limit)(RN_FN(vec) x, float low, float high) {
    typedef int32_t mask __attribute__((vector_size(4 * RN_LANES)));
    const RN_FN(vec) l = low - (RN_FN(vec)){0}, h = high - (RN_FN(vec)){0};
    /* The comparisons are false for NaN, so NaN stays. */
    const mask below = (mask)(x < l), above = (mask)(x > h);
    return (RN_FN(vec))(((mask)x & ~below & ~above) | ((mask)l & below) | ((mask)h & above));
}

/* Write A' m A + bias of one tile to the four rows of `y`, for `out` channels, a multiple of PANEL. */
static void RN_FN(backward)(const float *m, int64_t step, const float *bias, int64_t out, float low, float high,
                            float *const y[4]) {
    for (int64_t c = 0; c < out; c += RN_LANES) {
        RN_FN(vec) t[8];
#pragma GCC unroll 4
        for (int x = 0; x < 4; x++) {
            const RN_FN(vec) m0 = AT(m + x * step + c), m1 = AT(m + (4 + x) * step + c),
                             m2 = AT(m + (8 + x) * step + c), m3 = AT(m + (12 + x) * step + c);
            t[x] = m0 + m1 + m2;
            t[4 + x] = m1 - m2 - m3;
        }
        const RN_FN(vec) b = AT(bias + c);
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            const RN_FN(vec) *s = t + 4 * r;
            TO(y[2 * r] + c) = RN_FN(limit)(s[0] + s[1] + s[2] + b, low, high);
            TO(y[2 * r + 1] + c) = RN_FN(limit)(s[1] - s[2] - s[3] + b, low, high);
        }
    }
}

static void RN_FN(tiles)(const job *j, int64_t first, int count, float *scratch) {
    const int64_t step_v = (int64_t)j->block * j->in, step_m = (int64_t)j->block * CHUNK;
    float *v = scratch, *m = v + 16 * step_v, *spare = m + 16 * step_m, *zeros = spare + 4 * CHUNK;
    for (int t = 0; t < count; t++) {
        const place p = place_of(j, first + t);
        const float *d[16];
        for (int i = 0; i < 16; i++) {
            const int64_t y = p.y - 1 + i / 4, x = p.x - 1 + i % 4;
            const int inside = y >= 0 && y < j->height && x >= 0 && x < j->width;
            d[i] = inside ? j->x + ((p.n * j->height + y) * j->width + x) * j->in : zeros;
        }
        RN_FN(forward)(d, j->in, v + t * j->in, step_v);
    }
    for (int64_t o = 0; o < j->out; o += CHUNK) {
        const int64_t left = j->out - o < CHUNK ? j->out - o : CHUNK, padded = (left + PANEL - 1) / PANEL * PANEL;
        for (int i = 0; i < 16; i++)
            for (int64_t c = 0; c < padded; c += PANEL) {
                const float *u = j->u + ((i * j->panels + (o + c) / PANEL) * j->in) * PANEL;
                for (int t = 0; t < count; t += ROWS)
                    RN_FN(product)(v + i * step_v + t * j->in, j->in, u, m + i * step_m + t * CHUNK + c, CHUNK);
            }
        for (int t = 0; t < count; t++) {
            const place p = place_of(j, first + t);
            float *y[4];
            int outside = 0;
            for (int i = 0; i < 4; i++) {
                const int64_t row = p.y + i / 2, column = p.x + i % 2;
                const int inside = row < j->height && column < j->width;
                y[i] = inside ? j->y + ((p.n * j->height + row) * j->width + column) * j->out + o : NULL;
                outside |= !inside;
            }
            if (!outside && left == padded) {
                RN_FN(backward)(m + t * CHUNK, step_m, j->bias + o, padded, j->low, j->high, y);
                continue;
            }
            float *whole[4] = {spare, spare + CHUNK, spare + 2 * CHUNK, spare + 3 * CHUNK};
            RN_FN(backward)(m + t * CHUNK, step_m, j->bias + o, padded, j->low, j->high, whole);
            for (int i = 0; i < 4; i++)
                if (y[i] != NULL) memcpy(y[i], whole[i], (size_t)left * sizeof(float));
        }
    }
}

#undef ROWS
#undef AT
#undef TO
