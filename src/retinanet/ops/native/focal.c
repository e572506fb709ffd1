/* Focal loss of a batch, summed for each image, and its gradient, in one pass over the logits.

   An anchor is ignored (loss and gradient are 0, whatever its logits), positive with a class id, or background. Nearly
   every element, an (anchor, class) pair, is background. So the background is computed in long runs. A run ends at an
   ignored anchor and at the true class of a positive anchor. The true class is computed in float64 with libm.

   Blocks have a fixed size. Each block has a partial sum in float64. The partial sums are added in the order of the
   blocks, so the result does not depend on the number of threads. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "common.h"

#include <float.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };
enum { CHUNK = 256, BLOCK = 1 << 15 };

#define RN_BODY "focal_body.h"
#include "each_isa.h"

typedef struct {
    const void *logits;
    int type;
    int64_t anchors, classes, anchors_per_block, blocks_per_image;
    const uint8_t *positive, *ignored;
    const int64_t *labels;
    const float *positive_weight;
    const float *pattern; /* weights of the negatives, repeated, so that CHUNK weights follow any class */
    double gamma, target;
    const float *scale;
    void *gradient; /* bfloat16 for bfloat16 logits, else float32; or NULL */
    double *partial;
} job;

static float load(const job *j, int64_t i) {
    float value;
    if (j->type == FLOAT32) return ((const float *)j->logits)[i];
    if (j->type == BFLOAT16)
        from_bfloat16_baseline((const uint16_t *)j->logits + i, 1, &value);
    else
        from_float16_baseline((const uint16_t *)j->logits + i, 1, &value);
    return value;
}

static void store(const job *j, int64_t i, float value) {
    if (j->gradient == NULL) return;
    if (j->type == BFLOAT16)
        to_bfloat16_baseline(&value, 1, (uint16_t *)j->gradient + i);
    else
        ((float *)j->gradient)[i] = value;
}

static void clear(const job *j, int64_t begin, int64_t end) {
    if (j->gradient == NULL) return;
    const size_t size = j->type == BFLOAT16 ? 2 : 4;
    memset((char *)j->gradient + (size_t)begin * size, 0, (size_t)(end - begin) * size);
}

/* Return the loss of the elements begin .. end - 1, which are all background, and store their gradient. */
static double run(const job *j, int64_t begin, int64_t end, float scale) {
    double sum = 0;
    for (int64_t i = begin; i < end; i += CHUNK) {
        const int count = end - i < CHUNK ? (int)(end - i) : CHUNK;
        const float *weight = j->pattern + i % j->classes;
        float in[CHUNK], out[CHUNK];
        if (j->type == FLOAT32) {
            const float *x = (const float *)j->logits + i;
            float *gradient = j->gradient == NULL ? NULL : (float *)j->gradient + i;
            sum += RN_DISPATCH(focal_chunk, x, weight, scale, count, (float)j->gamma, gradient);
        } else if (j->type == BFLOAT16) {
            RN_DISPATCH(from_bfloat16, (const uint16_t *)j->logits + i, count, in);
            sum += RN_DISPATCH(focal_chunk, in, weight, scale, count, (float)j->gamma, j->gradient == NULL ? NULL : out);
            if (j->gradient != NULL) RN_DISPATCH(to_bfloat16, out, count, (uint16_t *)j->gradient + i);
        } else {
            float *gradient = j->gradient == NULL ? NULL : (float *)j->gradient + i;
            RN_DISPATCH(from_float16, (const uint16_t *)j->logits + i, count, in);
            sum += RN_DISPATCH(focal_chunk, in, weight, scale, count, (float)j->gamma, gradient);
        }
    }
    return sum;
}

/* Return the loss of element i, the true class of a positive anchor, and store its gradient.

   The loss is weight x base^gamma x entropy, with base = t (1 - p) + (1 - t) p and
   entropy = t softplus(-x) + (1 - t) softplus(x). 1 - p is computed as sigmoid(-x), because the difference would lose
   digits. */
static double own_class(const job *j, int64_t i, double weight, float scale) {
    const double x = (double)load(j, i), t = j->target;
    const double e = exp(-fabs(x));
    const double l = log1p(e);
    const double p = x > 0 ? 1 / (1 + e) : e / (1 + e), q = x > 0 ? e / (1 + e) : 1 / (1 + e);
    const double down = (x < 0 ? -x : 0) + l, up = (x > 0 ? x : 0) + l; /* softplus(-x), softplus(x) */
    double base, entropy, ratio;                                       /* ratio = base' / base */
    if (t == 1) {
        base = q;
        entropy = down;
        ratio = -p;
    } else {
        base = t * q + (1 - t) * p;
        entropy = t * down + (1 - t) * up;
        ratio = (1 - 2 * t) * p * q / base;
    }
    const double power = j->gamma == 0 ? 1 : pow(base, j->gamma);
    const double finite = entropy > DBL_MAX ? DBL_MAX : entropy; /* ratio is 0 where the entropy is infinite */
    const double slope = j->gamma * ratio * finite + (t == 1 ? -q : (1 - t) * p - t * q);
    store(j, i, (float)(weight * power * slope * (double)scale));
    return weight * power * entropy;
}

static void task(void *context, int64_t block, int worker) {
    (void)worker;
    const job *j = context;
    const int64_t image = block / j->blocks_per_image, part = block % j->blocks_per_image;
    const int64_t first = part * j->anchors_per_block;
    const int64_t last = first + j->anchors_per_block < j->anchors ? first + j->anchors_per_block : j->anchors;
    const int64_t base = image * j->anchors, classes = j->classes;
    const float scale = j->scale == NULL ? 1.0f : j->scale[image];
    double sum = 0;
    int64_t begin = (base + first) * classes;
    for (int64_t a = base + first; a < base + last; a++) {
        if (j->ignored[a]) {
            sum += run(j, begin, a * classes, scale);
            clear(j, a * classes, (a + 1) * classes);
            begin = (a + 1) * classes;
        } else if (j->positive[a]) {
            const int64_t own = a * classes + j->labels[a];
            sum += run(j, begin, own, scale);
            sum += own_class(j, own, (double)j->positive_weight[j->labels[a]], scale);
            begin = own + 1;
        }
    }
    sum += run(j, begin, (base + last) * classes, scale);
    j->partial[block] = sum;
}

/* The system maps fresh memory in pages of 4 KB, with one page fault each. Large pages are mapped several times faster.
   One worker maps each large page before any worker writes to it: otherwise two workers could clear the same page. The
   calls are hints; their failure changes no result. */
enum { LARGE = 1 << 21 };

static void fetch_large_page(void *context, int64_t page, int worker) {
    (void)worker;
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
    char *begin = (char *)context + page * LARGE;
    unsigned char mapped = 0;
    if (mincore(begin, 1, &mapped) == 0 && !(mapped & 1)) (void)madvise(begin, LARGE, MADV_POPULATE_WRITE);
#else
    (void)context;
    (void)page;
#endif
}

static void prefer_large_pages(void *memory, size_t size, int threads) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t large = LARGE;
    const uintptr_t begin = ((uintptr_t)memory + large - 1) & ~(large - 1);
    const uintptr_t end = ((uintptr_t)memory + size) & ~(large - 1);
    if (end <= begin || madvise((void *)begin, end - begin, MADV_HUGEPAGE) != 0) return;
    rn_parallel((int64_t)((end - begin) / large), threads, fetch_large_page, (void *)begin);
#else
    (void)memory;
    (void)size;
    (void)threads;
#endif
}

/* Write the loss of each image to `sums` and the gradient of sum_n scale_n sums_n to `gradient`.

   All arrays are contiguous: logits (images, anchors, classes); positive, ignored and labels (images, anchors);
   weights (classes); scale (images) or NULL; gradient in the shape of the logits or NULL; sums (images).

   Return 0; -1 if memory is exhausted; 1 if a positive anchor has a class id outside 0 .. classes - 1, before any loss
   is computed. */
RN_EXPORT int rn_focal(const void *logits, int type, int64_t images, int64_t anchors, int64_t classes,
                       const uint8_t *positive, const uint8_t *ignored, const int64_t *labels,
                       const float *positive_weight, const float *negative_weight, double gamma, double target,
                       const float *scale, void *gradient, int threads, double *sums) {
    for (int64_t n = 0; n < images; n++) sums[n] = 0;
    if (images == 0 || anchors == 0 || classes == 0) return 0;
    for (int64_t a = 0; a < images * anchors; a++)
        if (positive[a] && (labels[a] < 0 || labels[a] >= classes)) return 1;
    job j = {.logits = logits,
             .type = type,
             .anchors = anchors,
             .classes = classes,
             .positive = positive,
             .ignored = ignored,
             .labels = labels,
             .positive_weight = positive_weight,
             .gamma = gamma,
             .target = target,
             .scale = scale,
             .gradient = gradient};
    j.anchors_per_block = BLOCK / classes > 0 ? BLOCK / classes : 1;
    j.blocks_per_image = (anchors + j.anchors_per_block - 1) / j.anchors_per_block;
    float *pattern = malloc(sizeof(float) * ((size_t)classes + CHUNK));
    j.partial = malloc(sizeof(double) * (size_t)(images * j.blocks_per_image));
    if (pattern == NULL || j.partial == NULL) {
        free(pattern);
        free(j.partial);
        return -1;
    }
    for (int64_t k = 0; k < classes + CHUNK; k++) pattern[k] = negative_weight[k % classes];
    j.pattern = pattern;
    if (gradient != NULL)
        prefer_large_pages(gradient, (size_t)(images * anchors * classes) * (type == BFLOAT16 ? 2 : 4), threads);
    rn_parallel(images * j.blocks_per_image, threads, task, &j);
    for (int64_t n = 0; n < images; n++)
        for (int64_t b = 0; b < j.blocks_per_image; b++) sums[n] += j.partial[n * j.blocks_per_image + b];
    free(pattern);
    free(j.partial);
    return 0;
}
