/* Task-aligned assignment: task_aligned_native of retinanet.ops.task_aligned_native.

   Every operation and its order are those of the torch forms. The sigmoid is computed in float64 and rounded to float32,
   so that its last bit hardly ever depends on the library of mathematical functions: about one value in 10^8 does. An
   image is the unit of work of a thread. Memory grows with the anchors and with the boxes of an image. */
#include "assignment.h"

static const uint32_t LAST_ANCHOR = 0xffffffffu; /* task_aligned.LAST_ANCHOR */

typedef struct {
    const float *predicted, *logits, *boxes; /* logits: for each image, anchor and class, or NULL */
    const uint8_t *crowd;
    const int64_t *labels, *starts; /* starts: index of the first box of each image, then the number of boxes */
    int64_t anchor_count, predicted_images, classes, candidates;
    float *x, *y; /* centre of each anchor */
    float *predicted_area, *box_area;
    int low_quality, failed;
    int64_t *claims; /* for each image and anchor: bits of the IoU | LAST_BOX minus the index of the box, or 0 */
} align_t;

/* Keys above 0 have the order of positive values. Of equal values, the first anchor has the largest key. */
static inline uint64_t key_of(float value, int64_t anchor) {
    return (uint64_t)bits_of(value) << 32 | (LAST_ANCHOR - (uint32_t)anchor);
}

static inline int64_t anchor_of(uint64_t key) { return LAST_ANCHOR - (uint32_t)key; }

static inline float value_of(uint64_t key) {
    const uint32_t bits = (uint32_t)(key >> 32);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float probability_of(float logit) { return (float)(1.0 / (1.0 + exp(-(double)logit))); }

/* Insert a key into falling keys, unless all of these are larger. */
static inline void keep_largest(uint64_t *keys, int64_t count, uint64_t key) {
    if (key <= keys[count - 1]) return;
    int64_t j = count - 1;
    for (; j > 0 && keys[j - 1] < key; j--) keys[j] = keys[j - 1];
    keys[j] = key;
}

#define RN_BODY "task_aligned_body.h"
#include "each_isa.h"

static void align_task(void *context, int64_t image, int worker) {
    (void)worker;
    RN_DISPATCH(align_image, context, image);
}

/* Write the claims to the anchors of all images: (images, anchor_count). Return 0, 1 if the label of an object is not
   below `classes`, or -1 if memory is exhausted.

   `predicted` holds a box for each anchor, for one image or for each image. `logits` is NULL for equal scores. `starts`
   holds the index of the first box of each image, then the number of boxes. anchor_count is below 2^31. */
RN_EXPORT int rn_task_aligned(const float *anchors, int64_t anchor_count, const float *predicted,
                              int64_t predicted_images, const float *logits, int64_t classes, const float *boxes,
                              const uint8_t *crowd, const int64_t *labels, const int64_t *starts, int64_t images,
                              int64_t candidates, int low_quality, int threads, int64_t *claims) {
    if (!anchor_count || !images) return 0; /* the arrays may have no memory */
    const int64_t box_count = starts[images], predicted_count = predicted_images * anchor_count;
    if (logits)
        for (int64_t g = 0; g < box_count; g++)
            if (!crowd[g] && (labels[g] < 0 || labels[g] >= classes)) return 1;
    float *x = malloc((size_t)(2 * anchor_count + predicted_count + box_count) * sizeof(float));
    if (!x) return -1;
    align_t m = {
        .predicted = predicted,
        .logits = logits,
        .boxes = boxes,
        .crowd = crowd,
        .labels = labels,
        .starts = starts,
        .anchor_count = anchor_count,
        .predicted_images = predicted_images,
        .classes = classes,
        .candidates = candidates,
        .low_quality = low_quality,
        .x = x,
        .y = x + anchor_count,
        .predicted_area = x + 2 * anchor_count,
        .box_area = x + 2 * anchor_count + predicted_count,
        .claims = claims,
    };
    for (int64_t a = 0; a < anchor_count; a++) {
        m.x[a] = (anchors[4 * a] + anchors[4 * a + 2]) / 2;
        m.y[a] = (anchors[4 * a + 1] + anchors[4 * a + 3]) / 2;
    }
    areas_of(predicted, predicted_count, m.predicted_area);
    areas_of(boxes, box_count, m.box_area);
    memset(claims, 0, (size_t)(images * anchor_count) * sizeof(int64_t));
    rn_parallel(images, threads, align_task, &m);
    free(x);
    return __atomic_load_n(&m.failed, __ATOMIC_RELAXED) ? -1 : 0;
}
