/* Assignment by ATSS: atss_native of retinanet.ops.atss_native.

   Every operation and its order are those of atss_torch, so both forms return equal results, bit for bit. A compiler
   may fuse a multiplication and an addition. That changes no squared distance, the sum of two exact float64 products,
   and no sum of IoUs, which are integers. An image is the unit of work of a thread. Memory grows with the anchors, and
   with the boxes of an image times their candidates. */
#include "assignment.h"
#include "order.h"

enum { IOU_STEPS = 65536 }; /* atss_torch.IOU_STEPS */
static const float HALF_CENTRE_STEPS = 32.0f, CENTRE_STEP = 1.0f / 64; /* atss_torch.CENTRE_STEPS */

typedef struct {
    const float *anchors, *boxes;
    const uint8_t *crowd;
    const int64_t *starts; /* index of the first box of each image, then the number of boxes */
    const int64_t *positions; /* for each level: number of positions, and of anchors at each position */
    int64_t anchor_count, levels, candidates, per_box; /* per_box: number of candidates of a box */
    float *x, *y; /* centre of each position */
    float *anchor_area, *box_area;
    int64_t largest_level;
    int low_quality, failed;
    int64_t *claims; /* for each image and anchor: bits of the IoU | LAST_BOX minus the index of the box, or 0 */
} atss_t;

typedef struct {
    uint64_t *keys; /* for each position of a level: bits of its squared distance | its first anchor */
    int32_t *anchor; /* for each box and candidate */
    float *iou;
} atss_scratch;

static inline void sort_few(uint64_t *keys, int64_t count) {
    for (int64_t i = 1; i < count; i++) {
        const uint64_t key = keys[i];
        int64_t j = i;
        for (; j > 0 && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

#define RN_BODY "atss_body.h"
#include "each_isa.h"

static void assign_task(void *context, int64_t image, int worker) {
    (void)worker;
    RN_DISPATCH(assign_image, context, image);
}

/* Write the claims to the anchors of all images: (images, anchor_count). Return 0, or -1 if memory is exhausted.

   `starts` holds the index of the first box of each image, then the number of boxes. `positions` holds for each level
   the number of positions and the number of anchors at each position; their products add up to anchor_count, which is
   below 2^31. */
RN_EXPORT int rn_atss(const float *anchors, int64_t anchor_count, const float *boxes, const uint8_t *crowd,
                      const int64_t *starts, int64_t images, const int64_t *positions, int64_t levels,
                      int64_t candidates, int low_quality, int threads, int64_t *claims) {
    atss_t m = {
        .anchors = anchors,
        .boxes = boxes,
        .crowd = crowd,
        .starts = starts,
        .positions = positions,
        .anchor_count = anchor_count,
        .levels = levels,
        .candidates = candidates,
        .low_quality = low_quality,
        .claims = claims,
    };
    if (!anchor_count || !images) return 0; /* the arrays may have no memory */
    int64_t total = 0;
    for (int64_t l = 0; l < levels; l++) {
        const int64_t count = positions[2 * l], each = positions[2 * l + 1];
        total += count;
        m.largest_level = count > m.largest_level ? count : m.largest_level;
        m.per_box += (count < candidates ? count : candidates) * each;
    }
    m.x = malloc((size_t)(2 * total + anchor_count + starts[images] + 1) * sizeof(float));
    if (!m.x) return -1;
    m.y = m.x + total;
    m.anchor_area = m.y + total;
    m.box_area = m.anchor_area + anchor_count;
    areas_of(anchors, anchor_count, m.anchor_area);
    areas_of(boxes, starts[images], m.box_area);
    int64_t p = 0, a = 0;
    for (int64_t l = 0; l < levels; l++)
        for (int64_t i = 0; i < positions[2 * l]; i++, p++, a += positions[2 * l + 1]) {
            m.x[p] = rintf((anchors[4 * a] + anchors[4 * a + 2]) * HALF_CENTRE_STEPS) * CENTRE_STEP;
            m.y[p] = rintf((anchors[4 * a + 1] + anchors[4 * a + 3]) * HALF_CENTRE_STEPS) * CENTRE_STEP;
        }
    memset(claims, 0, (size_t)(images * anchor_count) * sizeof(int64_t));
    rn_parallel(images, threads, assign_task, &m);
    free(m.x);
    return __atomic_load_n(&m.failed, __ATOMIC_RELAXED) ? -1 : 0;
}
