/* Sort keys: ascending keys are falling values, and equal values are ordered by their index. All keys differ. */
#ifndef RN_ORDER_H
#define RN_ORDER_H

#include "common.h"

/* Map a value to an unsigned number: larger values to smaller numbers. -0 equals 0. NaN is first, as in torch. */
static inline uint32_t rn_falling(float value) {
    if (value != value) return 0;
    uint32_t bits;
    value += 0.0f; /* -0 to 0 */
    memcpy(&bits, &value, sizeof bits);
    return ~(bits & 0x80000000u ? ~bits : bits | 0x80000000u);
}

static inline float rn_value_of(uint32_t falling) {
    const uint32_t rising = ~falling;
    const uint32_t bits = rising & 0x80000000u ? rising & 0x7fffffffu : ~rising;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t rn_key(float value, uint32_t index) { return (uint64_t)rn_falling(value) << 32 | index; }

/* Sort the keys by their bytes [first_byte, 8), stable. `other` has the size of `keys`. Return the array, `keys` or
   `other`, that holds the result. */
static inline uint64_t *rn_sort(uint64_t *keys, uint64_t *other, int64_t count, int first_byte) {
    for (int shift = 8 * first_byte; shift < 64; shift += 8) {
        int64_t at[256] = {0};
        for (int64_t i = 0; i < count; i++) at[keys[i] >> shift & 255]++;
        int64_t sum = 0;
        int trivial = 0;
        for (int b = 0; b < 256; b++) {
            const int64_t here = at[b];
            trivial |= here == count;
            at[b] = sum;
            sum += here;
        }
        if (trivial) continue;
        for (int64_t i = 0; i < count; i++) other[at[keys[i] >> shift & 255]++] = keys[i];
        uint64_t *const swap = keys;
        keys = other;
        other = swap;
    }
    return keys;
}

/* Move the `selected` smallest keys to the front, in any order. Random pivots make the time linear for every input. */
static inline void rn_select(uint64_t *keys, int64_t count, int64_t selected) {
    int64_t low = 0, high = count - 1;
    uint64_t random = 0x9e3779b97f4a7c15u;
    while (low < high) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const uint64_t pivot = keys[low + (int64_t)(random % (uint64_t)(high - low + 1))];
        int64_t i = low, j = high;
        while (i <= j) {
            while (keys[i] < pivot) i++;
            while (keys[j] > pivot) j--;
            if (i <= j) {
                const uint64_t swap = keys[i];
                keys[i++] = keys[j];
                keys[j--] = swap;
            }
        }
        if (selected - 1 <= j)
            high = j;
        else if (selected - 1 >= i)
            low = i;
        else
            return;
    }
}

#endif
