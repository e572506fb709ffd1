/* Shared by the assigners ATSS and task-aligned: claims of boxes to anchors, as in retinanet.ops.assignment.

   The result of a multiplication may be fused with an addition. So areas are stored before they are added. */
#ifndef RN_ASSIGNMENT_H
#define RN_ASSIGNMENT_H

#include "common.h"

static const uint32_t LAST_BOX = 0xffffffffu; /* assignment.LAST_BOX */

static inline float side_of(float low, float high) {
    const float length = high - low;
    return length < 0.0f ? 0.0f : length;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline int64_t claim_of(float iou, int64_t box) {
    return (int64_t)((uint64_t)bits_of(iou) << 32 | (LAST_BOX - (uint32_t)box));
}

static inline void areas_of(const float *boxes, int64_t count, float *area) {
    for (int64_t i = 0; i < count; i++)
        area[i] = side_of(boxes[4 * i], boxes[4 * i + 2]) * side_of(boxes[4 * i + 1], boxes[4 * i + 3]);
}

/* Return the IoU of two boxes as boxes.iou does: 0 without an area, and 0 for NaN. */
static inline float iou_of(const float *a, float a_area, const float *b, float b_area) {
    const float width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    const float height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    const float common = (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
    const float all = a_area + b_area - common;
    return all > 0.0f ? common / all : 0.0f;
}

/* Give each box of an image without an anchor its best candidate without a claim. All boxes choose before any of them
   claims.

   `anchor` and `iou` hold the `per_box` candidates of each box. `reached` and `choice` are scratch memory, one entry per
   box. */
static inline void claim_for_unreached(int64_t boxes, int64_t per_box, const int32_t *anchor, const float *iou,
                                       const uint8_t *crowd, int64_t anchor_count, uint8_t *reached, int64_t *choice,
                                       int64_t *claims) {
    memset(reached, 0, (size_t)boxes);
    for (int64_t a = 0; a < anchor_count; a++)
        if (claims[a]) reached[LAST_BOX - (uint32_t)claims[a]] = 1;
    for (int64_t g = 0; g < boxes; g++) {
        float best = 0.0f;
        choice[g] = -1;
        if (reached[g] || crowd[g]) continue;
        for (int64_t j = g * per_box; j < (g + 1) * per_box; j++)
            if (iou[j] > best && !claims[anchor[j]]) {
                best = iou[j];
                choice[g] = j;
            }
    }
    for (int64_t g = 0; g < boxes; g++) {
        if (choice[g] < 0) continue;
        const int64_t claim = claim_of(iou[choice[g]], g), a = anchor[choice[g]];
        if (claim > claims[a]) claims[a] = claim;
    }
}

#endif
