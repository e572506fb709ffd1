/* Matching of anchors and ground-truth boxes: match_native of retinanet.ops.matching_native.

   A box is compared only with tiles of anchors that it touches. Every float operation and its order are those of
   match_torch (no contraction, no reassociation). So both forms return equal results, bit for bit, also at the
   thresholds.

   A block is the unit of work of a thread. Its anchors are stored as a structure of arrays on the stack. A tile is a
   run of anchors of a block with a common bounding box. Memory grows with the anchors and with the boxes, not with
   their product. */
#include "common.h"

enum { BLOCK = 1024, TILE = 64, TILES = BLOCK / TILE, LANES = 16, CHUNK = 256 };

typedef struct {
    float *x1, *y1, *x2, *y2, *area;
    int32_t *index; /* index of the box within the target of its image */
    int64_t *starts; /* index of the first box of each image, then the number of boxes */
} boxes_t;

typedef struct {
    const float *anchors;
    int64_t anchor_count, images, block_count;
    const float *boxes;
    const int64_t *labels, *starts;
    float positive_iou, negative_iou;
    int low_quality, shift;
    boxes_t objects, crowds;
    uint64_t *best; /* for each object: bits of its highest IoU | first block with that IoU | last block with it */
    int32_t *best_object; /* for each anchor: object with the highest IoU */
    uint8_t *positive, *ignored;
    int64_t *out_labels, *matched;
    float *out_boxes;
} match_t;

typedef struct {
    float x1[BLOCK], y1[BLOCK], x2[BLOCK], y2[BLOCK], area[BLOCK];
    float low_x[TILES], low_y[TILES], high_x[TILES], high_y[TILES];
    int64_t first;
    int count;
} block_t;

/* Return the length of a side as boxes.area computes it: 0 for an inverted side, NaN for NaN. */
static inline float box_side(float low, float high) {
    const float length = high - low;
    return length < 0.0f ? 0.0f : length;
}

#define RN_BODY "matching_body.h"
#include "each_isa.h"

static void first_pass(void *context, int64_t block, int worker) {
    (void)worker;
    RN_DISPATCH(match_block, context, block);
}

static void second_pass(void *context, int64_t block, int worker) {
    (void)worker;
    RN_DISPATCH(match_best, context, block);
}

/* Copy either the crowd regions (is_crowd = 1) or the objects (is_crowd = 0) to `out`. Return 0 if memory is
   exhausted. */
static int split_boxes(const float *boxes, const uint8_t *crowd, const int64_t *starts, int64_t images, int is_crowd,
                       boxes_t *out) {
    const int64_t total = starts[images];
    float *memory = malloc((size_t)(total + 1) * 5 * sizeof(float));
    out->x1 = memory;
    out->index = malloc((size_t)(total + 1) * sizeof(int32_t));
    out->starts = malloc((size_t)(images + 1) * sizeof(int64_t));
    if (!memory || !out->index || !out->starts) return 0;
    out->y1 = memory + (total + 1);
    out->x2 = memory + 2 * (total + 1);
    out->y2 = memory + 3 * (total + 1);
    out->area = memory + 4 * (total + 1);
    int64_t count = 0;
    for (int64_t n = 0; n < images; n++) {
        out->starts[n] = count;
        for (int64_t g = starts[n]; g < starts[n + 1]; g++) {
            if ((crowd[g] != 0) != is_crowd) continue;
            const float *box = boxes + 4 * g;
            out->x1[count] = box[0];
            out->y1[count] = box[1];
            out->x2[count] = box[2];
            out->y2[count] = box[3];
            out->area[count] = box_side(box[0], box[2]) * box_side(box[1], box[3]);
            out->index[count++] = (int32_t)(g - starts[n]);
        }
    }
    out->starts[images] = count;
    return 1;
}

static void free_boxes(boxes_t *boxes) {
    free(boxes->x1);
    free(boxes->index);
    free(boxes->starts);
}

/* Match the anchors of all images. Return 0, or -1 if memory is exhausted.

   Every output is written in full: positive, ignored, out_labels and matched (images, anchor_count), out_boxes (images,
   anchor_count, 4). `starts` holds the index of the first box of each image, then the number of boxes. */
RN_EXPORT int rn_match(const float *anchors, int64_t anchor_count, const float *boxes, const int64_t *labels,
                           const uint8_t *crowd, const int64_t *starts, int64_t images, float positive_iou,
                           float negative_iou, int low_quality, int threads, uint8_t *positive, uint8_t *ignored,
                           int64_t *out_labels, float *out_boxes, int64_t *matched) {
    match_t m = {
        .anchors = anchors,
        .anchor_count = anchor_count,
        .images = images,
        .block_count = (anchor_count + BLOCK - 1) / BLOCK,
        .boxes = boxes,
        .labels = labels,
        .starts = starts,
        .positive_iou = positive_iou,
        .negative_iou = negative_iou,
        .low_quality = low_quality,
        .positive = positive,
        .ignored = ignored,
        .out_labels = out_labels,
        .matched = matched,
        .out_boxes = out_boxes,
    };
    while ((m.block_count >> m.shift) > 0xffff) m.shift++;
    int good = split_boxes(boxes, crowd, starts, images, 0, &m.objects);
    good = split_boxes(boxes, crowd, starts, images, 1, &m.crowds) && good;
    if (low_quality && good) {
        m.best = calloc((size_t)(m.objects.starts[images] + 1), sizeof(uint64_t));
        m.best_object = malloc((size_t)(images * anchor_count + 1) * sizeof(int32_t));
        good = m.best && m.best_object;
    }
    if (good) {
        rn_parallel(m.block_count, threads, first_pass, &m);
        if (low_quality) rn_parallel(m.block_count, threads, second_pass, &m);
    }
    free(m.best);
    free(m.best_object);
    free_boxes(&m.objects);
    free_boxes(&m.crowds);
    return good ? 0 : -1;
}
