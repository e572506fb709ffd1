/* A 3x3 convolution with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308,
   section 4.1). Stride 1, zeros around the image, float32.

   A tile is 2x2 outputs and the 4x4 inputs that they depend on. A worker takes a block of tiles through all three
   steps: transform the inputs, compute 16 matrix products, transform the outputs. So intermediate results stay in its
   cache. The arithmetic of a tile does not depend on its block or on the threads: a tile computed alone gives
   identical outputs. */
#include "common.h"

enum { PANEL = 32, CHUNK = 256, MOST_ROWS = 14, BLOCK = 42 };

typedef struct {
    const float *x, *u, *bias; /* bias padded to whole panels */
    int64_t height, width, in, out, panels;
    int64_t across, down; /* number of tiles in a row and in a column */
    const int32_t *tiles; /* indices of the tiles to compute; NULL: all tiles (an empty list may be NULL, too) */
    int64_t count;
    int block; /* number of tiles of a block */
    float low, high;
    float *y;
    size_t room;     /* size of the scratch memory of a worker, in floats */
    float **scratch; /* [worker], NULL until the worker has work */
    int *failed;     /* [worker] */
} job;

typedef struct {
    int64_t n, y, x; /* position of the first output of the tile */
} place;

static inline place place_of(const job *j, int64_t index) {
    const int64_t tile = j->tiles == NULL ? index : j->tiles[index];
    const int64_t row = tile / j->across;
    return (place){row / j->down, 2 * (row % j->down), 2 * (tile % j->across)};
}

#define RN_BODY "winograd_body.h"
#include "each_isa.h"

static void task(void *context, int64_t block, int worker) {
    const job *j = context;
    if (j->scratch[worker] == NULL && (j->scratch[worker] = calloc(j->room, sizeof(float))) == NULL) {
        j->failed[worker] = 1;
        return;
    }
    const int64_t first = block * j->block;
    const int count = (int)(j->count - first < j->block ? j->count - first : j->block);
    RN_DISPATCH(tiles, j, first, count, j->scratch[worker]);
}

/* Transform every kernel g of (out, in, 3, 3) to G g G'. Write 16 matrices in panels, [16][panels][in][PANEL]; the last
   panel is padded with zeros. */
RN_EXPORT int rn_winograd_weights(const float *g, int64_t out, int64_t in, float *u) {
    const int64_t panels = (out + PANEL - 1) / PANEL;
    memset(u, 0, (size_t)(16 * panels * in * PANEL) * sizeof(float));
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            const float *k = g + (o * in + i) * 9;
            double t[4][3];
            for (int c = 0; c < 3; c++) {
                const double a = k[c], b = k[3 + c], d = k[6 + c];
                t[0][c] = a;
                t[1][c] = (a + b + d) / 2;
                t[2][c] = (a - b + d) / 2;
                t[3][c] = d;
            }
            for (int r = 0; r < 4; r++) {
                const double row[4] = {t[r][0], (t[r][0] + t[r][1] + t[r][2]) / 2, (t[r][0] - t[r][1] + t[r][2]) / 2,
                                       t[r][2]};
                for (int c = 0; c < 4; c++)
                    u[(((4 * r + c) * panels + o / PANEL) * in + i) * PANEL + o % PANEL] = (float)row[c];
            }
        }
    return 0;
}

/* Write the convolution to `y`. Return 0; -1 if memory is exhausted; 1 if an argument is invalid.

   x: (n, height, width, in), with `in` a multiple of 16. u: weights from rn_winograd_weights. bias: `out` values,
   padded with zeros to a whole panel. tiles: `count` indices of the n x ceil(height / 2) x ceil(width / 2) tiles; a
   count of -1 computes all tiles. y: (n, height, width, out). Only the outputs of the chosen tiles are written,
   clamped to [low, high]; NaN stays NaN. */
RN_EXPORT int rn_winograd(const float *x, int64_t n, int64_t height, int64_t width, int64_t in, const float *u,
                          const float *bias, int64_t out, float low, float high, const int32_t *tiles, int64_t count,
                          int threads, float *y) {
    if (n < 0 || height < 0 || width < 0 || in < 16 || in % 16 != 0 || out < 1 || count < -1) return 1;
    if (threads < 1) threads = 1;
    if (threads > 256) threads = 256;
    job j = {.x = x, .u = u, .bias = bias, .height = height, .width = width, .in = in, .out = out, .y = y};
    j.panels = (out + PANEL - 1) / PANEL;
    j.across = (width + 1) / 2;
    j.down = (height + 1) / 2;
    j.tiles = count < 0 ? NULL : tiles;
    j.count = count < 0 ? n * j.across * j.down : count;
    j.low = low;
    j.high = high;
    if (j.count == 0) return 0;
    for (int64_t t = 0; t < count; t++)
        if (tiles[t] < 0 || tiles[t] >= n * j.across * j.down) return 1;
    const int64_t share = (j.count + threads - 1) / threads;
    j.block = (int)(share < BLOCK ? (share + MOST_ROWS - 1) / MOST_ROWS * MOST_ROWS : BLOCK);
    const int64_t blocks = (j.count + j.block - 1) / j.block;
    /* Whole groups of rows are multiplied. Results beyond the last tile are unused, or overwritten by the next
       product. */
    j.room = (size_t)(16 * (j.block + MOST_ROWS) * (in + CHUNK) + 4 * CHUNK + in);
    float *scratch[256] = {NULL};
    int failed[256] = {0}, result = 0;
    j.scratch = scratch;
    j.failed = failed;
    rn_parallel(blocks, threads, task, &j);
    for (int t = 0; t < threads; t++) {
        result = failed[t] ? -1 : result;
        free(scratch[t]);
    }
    return result;
}
