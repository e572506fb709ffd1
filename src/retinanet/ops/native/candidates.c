/* The highest scores of each feature level: a threshold on logits and a streaming top-k, in one pass without a copy.

   Every worker keeps a buffer for each level. When a buffer is full, the worker keeps the best k scores and raises the
   threshold to the lowest kept score. After that, few scores pass the threshold. A worker reads the scores of a level
   in rising order of their index, so the first of equal scores is kept. */
#include "order.h"

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };
enum { SEGMENT = 64, BLOCK = 1 << 16, SLACK = 2048 };

typedef struct {
    uint64_t *keys; /* NULL until the worker reads scores of the level */
    int64_t count;
    float threshold; /* only scores above the threshold are stored */
} buffer;

typedef struct {
    const void *logits;
    int type;
    int levels, most;
    const int64_t *starts; /* index of the first score of each level, then the number of scores */
    const int64_t *blocks; /* index of the first block of each level, then the number of blocks */
    int64_t k, room;
    float threshold;
    buffer *buffers; /* [worker][level] */
    int *failed;     /* [worker] */
} job;

static inline float half_value(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t bits;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float short_value(uint16_t bits, int type) {
    if (type == FLOAT16) return half_value(bits);
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Map the bits of a 16-bit float to an integer with the same order. The function is its own inverse. */
static inline int16_t short_order(uint16_t bits) {
    const int16_t s = (int16_t)bits;
    return (int16_t)(s ^ (s < 0 ? 0x7fff : 0));
}

/* Return the smallest order of a value above the threshold, or the order of infinity plus 1 if no value is above it. */
static int16_t first_above(float threshold, int type) {
    const int infinity = type == FLOAT16 ? 0x7c00 : 0x7f80;
    int low = -infinity - 1, high = infinity + 1;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const uint16_t bits = (uint16_t)short_order((uint16_t)(int16_t)middle);
        if (short_value(bits, type) > threshold)
            high = middle;
        else
            low = middle + 1;
    }
    return (int16_t)low;
}

/* Keep the best k scores of the buffer, in any order, and raise its threshold to the lowest kept score. */
static void compact(buffer *b, int64_t k) {
    rn_select(b->keys, b->count, k);
    uint64_t worst = 0;
    for (int64_t i = 0; i < k; i++) worst = b->keys[i] > worst ? b->keys[i] : worst;
    b->count = k;
    b->threshold = rn_value_of((uint32_t)(worst >> 32));
}

#define RN_BODY "candidates_body.h"
#include "each_isa.h"

static void task(void *context, int64_t block, int worker) {
    const job *j = context;
    int level = 0;
    while (block >= j->blocks[level + 1]) level++;
    buffer *b = j->buffers + (int64_t)worker * j->levels + level;
    if (b->keys == NULL) {
        b->keys = malloc((size_t)j->room * sizeof(uint64_t));
        b->threshold = j->threshold;
        if (b->keys == NULL) {
            j->failed[worker] = 1;
            return;
        }
    }
    const int64_t first = (block - j->blocks[level]) * BLOCK, size = j->starts[level + 1] - j->starts[level];
    const int64_t count = size - first < BLOCK ? size - first : BLOCK;
    if (j->type == FLOAT32)
        RN_DISPATCH(scan_float, (const float *)j->logits + j->starts[level] + first, count, first, j, b);
    else
        RN_DISPATCH(scan_short, (const uint16_t *)j->logits + j->starts[level] + first, count, first, j, b);
}

/* Write the candidates of all levels. Return 0, or -1 if memory is exhausted.

   logits: (sum of anchors, classes), contiguous. A level has fewer than 2^32 scores. `anchor`, `label` and `logit` have
   room for k candidates of each level. `found` receives the number of candidates. They are ordered by level, then by
   falling score, then by index. */
RN_EXPORT int rn_candidates(const void *logits, int type, const int64_t *anchors, int levels, int64_t classes,
                            float threshold, int64_t k, int threads, int64_t *anchor, int64_t *label, float *logit,
                            int64_t *found) {
    int result = -1;
    if (threads < 1) threads = 1;
    if (threads > 256) threads = 256;
    int64_t *starts = malloc(2 * (size_t)(levels + 1) * sizeof(int64_t)), *blocks = starts + levels + 1;
    buffer *buffers = calloc((size_t)threads * (size_t)levels + 1, sizeof(buffer));
    int *failed = calloc((size_t)threads, sizeof(int));
    uint64_t *keys = NULL;
    if (starts == NULL || buffers == NULL || failed == NULL) goto end;
    starts[0] = blocks[0] = 0;
    int64_t largest = 0;
    for (int l = 0; l < levels; l++) {
        const int64_t size = anchors[l] * classes;
        starts[l + 1] = starts[l] + size;
        blocks[l + 1] = blocks[l] + (size + BLOCK - 1) / BLOCK;
        largest = size > largest ? size : largest;
    }
    const int64_t most = k < largest ? k : largest;
    job j = {.logits = logits, .type = type, .levels = levels, .starts = starts, .blocks = blocks, .k = most};
    j.room = 2 * most + SLACK;
    j.threshold = threshold;
    j.buffers = buffers;
    j.failed = failed;
    rn_parallel(blocks[levels], threads, task, &j);
    for (int t = 0; t < threads; t++)
        if (failed[t]) goto end;
    *found = 0;
    int64_t first_anchor = 0;
    for (int l = 0; l < levels; l++) {
        int64_t count = 0;
        for (int t = 0; t < threads; t++) count += buffers[(int64_t)t * levels + l].count;
        free(keys);
        keys = malloc(2 * (size_t)(count + 1) * sizeof(uint64_t));
        if (keys == NULL) goto end;
        count = 0;
        for (int t = 0; t < threads; t++) {
            const buffer *b = buffers + (int64_t)t * levels + l;
            if (b->count) memcpy(keys + count, b->keys, (size_t)b->count * sizeof(uint64_t));
            count += b->count;
        }
        const int64_t selected = count < most ? count : most;
        if (count > selected) rn_select(keys, count, selected);
        const uint64_t *sorted = rn_sort(keys, keys + count, selected, 0);
        for (int64_t i = 0; i < selected; i++) {
            const int64_t index = (int64_t)(sorted[i] & 0xffffffffu);
            anchor[*found] = first_anchor + index / classes;
            label[*found] = index % classes;
            logit[(*found)++] = rn_value_of((uint32_t)(sorted[i] >> 32));
        }
        first_anchor += anchors[l];
    }
    result = 0;
end:
    free(keys);
    for (int64_t i = 0; buffers != NULL && i < (int64_t)threads * levels; i++) free(buffers[i].keys);
    free(buffers);
    free(failed);
    free(starts);
    return result;
}
