/* Sum of float32 values, added in float64. This smallest kernel shows the structure of the others. */
#include "common.h"

#define RN_BODY "sum_body.h"
#include "each_isa.h"

enum { BLOCK = 1 << 15 };

typedef struct {
    const float *values;
    int64_t count;
    double *partial;
} job;

static void task(void *context, int64_t block, int worker) {
    (void)worker;
    const job *j = context;
    const int64_t begin = block * BLOCK;
    const int64_t count = j->count - begin < BLOCK ? j->count - begin : BLOCK;
    j->partial[block] = RN_DISPATCH(sum_block, j->values + begin, count);
}

/* Write the sum to `out`. Return 0, or -1 if memory is exhausted. */
RN_EXPORT int rn_sum(const float *values, int64_t count, int threads, double *out) {
    const int64_t blocks = (count + BLOCK - 1) / BLOCK;
    double *partial = malloc(sizeof(double) * (size_t)(blocks > 0 ? blocks : 1));
    if (partial == NULL) return -1;
    job j = {values, count, partial};
    rn_parallel(blocks, threads, task, &j);
    double sum = 0;
    for (int64_t block = 0; block < blocks; block++) sum += partial[block];
    free(partial);
    *out = sum;
    return 0;
}
