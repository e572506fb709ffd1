/* Greedy non-maximum suppression within each class, by falling score, until `limit` boxes are kept.

   A box is compared only with kept boxes of its class. No coordinates are shifted, so every IoU equals, bit for bit,
   the IoU that torchvision.ops.nms computes for one class. */
#include "order.h"

enum { LANES = 16 };

typedef struct {
    float *x1, *y1, *x2, *y2, *area;
} kept_boxes;

#define RN_BODY "nms_body.h"
#include "each_isa.h"

static inline uint64_t scrambled(uint64_t label) {
    label *= 0x9e3779b97f4a7c15u;
    return label ^ label >> 32;
}

/* Number the classes in the order of their first box. Return the number of classes, or -1 if memory is exhausted. */
static int64_t number_classes(const int64_t *labels, int64_t count, int32_t *classes) {
    if (labels == NULL) {
        memset(classes, 0, (size_t)count * sizeof(int32_t));
        return 1;
    }
    uint64_t slots = 64;
    while (slots < 2 * (uint64_t)count) slots *= 2;
    int64_t *seen = malloc(slots * sizeof(int64_t));
    int32_t *number = malloc(slots * sizeof(int32_t));
    int32_t found = 0;
    if (seen != NULL && number != NULL) {
        memset(number, 0xff, slots * sizeof(int32_t));
        for (int64_t i = 0; i < count; i++) {
            uint64_t at = scrambled((uint64_t)labels[i]) & (slots - 1);
            while (number[at] >= 0 && seen[at] != labels[i]) at = (at + 1) & (slots - 1);
            if (number[at] < 0) {
                seen[at] = labels[i];
                number[at] = found++;
            }
            classes[i] = number[at];
        }
    } else {
        found = -1;
    }
    free(seen);
    free(number);
    return found;
}

/* Write the indices of the kept boxes to `keep`, by falling score. Return 0, or -1 if memory is exhausted.

   boxes: (count, 4) xyxy; scores: (count,); labels: (count,) or NULL for one class; count below 2^31. A box is dropped
   if its IoU with a kept box of its class is above `threshold`, which is 0 or more. Of equal scores, the first counts
   as higher. `keep` has room for min(limit, count) indices; `found` receives their number. */
RN_EXPORT int rn_nms(const float *boxes, const float *scores, const int64_t *labels, int64_t count, double threshold,
                     int64_t limit, int64_t *keep, int64_t *found) {
    int result = -1;
    *found = 0;
    if (count <= 0 || limit <= 0) return 0;
    /* For a float32 IoU, IoU > threshold in float64 equals IoU > most, the largest float32 that is not above
       threshold. */
    float most = (float)threshold;
    if ((double)most > threshold) most = nextafterf(most, -INFINITY);
    uint64_t *keys = malloc(2 * (size_t)count * sizeof(uint64_t));
    int32_t *classes = malloc((size_t)count * sizeof(int32_t));
    int64_t *starts = NULL, *filled = NULL;
    float *memory = NULL;
    if (keys == NULL || classes == NULL) goto end;
    const int64_t class_count = number_classes(labels, count, classes);
    if (class_count < 0) goto end;
    starts = calloc((size_t)class_count + 1, sizeof(int64_t));
    filled = calloc((size_t)class_count, sizeof(int64_t));
    if (starts == NULL || filled == NULL) goto end;
    for (int64_t i = 0; i < count; i++) {
        keys[i] = rn_key(scores[i], (uint32_t)i);
        starts[classes[i] + 1]++;
    }
    for (int64_t c = 0; c < class_count; c++) {
        /* No class keeps more than `limit` boxes. */
        const int64_t own = starts[c + 1] < limit ? starts[c + 1] : limit;
        starts[c + 1] = starts[c] + (own + LANES - 1) / LANES * LANES;
    }
    const size_t room = (size_t)starts[class_count];
    memory = malloc(5 * room * sizeof(float));
    if (memory == NULL) goto end;
    /* NaN: an unused slot overlaps no box. */
    memset(memory, 0xff, 5 * room * sizeof(float));
    const uint64_t *sorted = rn_sort(keys, keys + count, count, 4);
    for (int64_t i = 0; i < count && *found < limit; i++) {
        const int64_t index = (int64_t)(sorted[i] & 0xffffffffu);
        const int32_t c = classes[index];
        const float *box = boxes + 4 * index;
        float *const at = memory + starts[c];
        const kept_boxes kept = {at, at + room, at + 2 * room, at + 3 * room, at + 4 * room};
        if (RN_DISPATCH(suppressed, box, &kept, filled[c], most)) continue;
        const int64_t new = filled[c]++;
        kept.x1[new] = box[0];
        kept.y1[new] = box[1];
        kept.x2[new] = box[2];
        kept.y2[new] = box[3];
        kept.area[new] = (box[2] - box[0]) * (box[3] - box[1]);
        keep[(*found)++] = index;
    }
    result = 0;
end:
    free(keys);
    free(classes);
    free(starts);
    free(filled);
    free(memory);
    return result;
}
