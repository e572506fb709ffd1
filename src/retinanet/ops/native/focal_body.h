/* Focal loss and gradient of background elements: see focal.c. The compiler vectorises the plain loops. Every choice
   in a loop compiles to a select, not to a branch.

   With e = exp(-|x|), which never overflows: p = sigmoid(x) = 1/(1+e) or e/(1+e), softplus(x) = max(x, 0) + log1p(e),
   log1p(e) = 2 atanh(s), s = e/(2+e) <= 1/3. So the series of atanh is short, and its relative error stays small as e
   goes to 0. */

/* Return exp(a + b) for a <= 0 and a small b; 0 for a below -87.3. NaN stays NaN. */
static inline float RN_FN(exp2part)(float a, float b) {
    const float shifter = 12582912.0f; /* 1.5 x 2^23: adding it rounds to a whole number */
    const float shifted = a * 1.44269504f + shifter;
    const float n = shifted - shifter;
    float f = a - n * 0.693145752f; /* ln 2 in two parts; n times the first part is exact, because it has few bits */
    f = f - n * 1.42860677e-6f;
    f = f + b;
    float q = 0.00139261968f;
    q = q * f + 0.00836319011f;
    q = q * f + 0.0416665561f;
    q = q * f + 0.166665763f;
    q = q * f + 0.5f;
    const float mantissa = 1.0f + (f + f * f * q);
    union {
        float number;
        uint32_t bits;
    } scale = {.number = shifted};
    scale.bits = (scale.bits << 23) + 0x3f800000u; /* 2^n */
    return a < -87.3f ? 0.0f : mantissa * scale.number;
}

/* `mode` is gamma if gamma is 0, 1 or 2, else -1. Every call passes a constant `mode` and `with_gradient`. */
static inline __attribute__((always_inline)) void RN_FN(background)(const float *restrict x, const float *restrict weight,
                                                                    float scale, int count, float gamma, int mode,
                                                                    int with_gradient, float *restrict loss,
                                                                    float *restrict gradient) {
    const float huge = 3.402823466e38f;
    for (int i = 0; i < count; i++) {
        const float v = x[i];
        const float e = RN_FN(exp2part)(-fabsf(v), 0.0f);
        const float up = 1.0f + e, upper = 2.0f + e;
        const float both = 1.0f / (up * upper); /* one division for 1 / up and 1 / upper */
        const float r = upper * both, s = e * up * both;
        const float z = s * s;
        float t = 0.268514991f;
        t = t * z + 0.282366186f;
        t = t * z + 0.400075614f;
        t = t * z + 0.666666389f;
        const float l = 2.0f * s + s * z * t; /* log1p(e) */
        const float er = e * r;
        const float p = v > 0.0f ? r : er;
        const float q = v > 0.0f ? er : r; /* 1 - p */
        const float entropy = (v > 0.0f ? v : 0.0f) + l;
        float power; /* p^gamma */
        if (mode == 0)
            power = 1.0f;
        else if (mode == 1)
            power = p;
        else if (mode == 2)
            power = p * p;
        else {
            /* p^gamma = exp(gamma log p), with log p = min(x, 0) - l. gamma x may be -87, and a rounding
               error of gamma x is a relative error of the result. So the product and the sum are kept in
               two parts each. The first factors have 12 bits, so their product is exact, whether or not
               the compiler fuses it with a sum. */
            const float low = v < 0.0f ? v : 0.0f;
            const float bounded = low < -128.0f ? -128.0f : low; /* the entropy is 0 in float32 below -128 */
            union {
                float number;
                uint32_t bits;
            } head = {.number = bounded}, steep = {.number = gamma};
            head.bits &= 0xfffff000u;
            steep.bits &= 0xfffff000u;
            const float product = head.number * steep.number;
            float lost = head.number * (gamma - steep.number) + (bounded - head.number) * gamma;
            const float bend = -gamma * l;
            const float sum = product + bend;
            const float back = sum - product;
            lost += (product - (sum - back)) + (bend - back);
            power = RN_FN(exp2part)(sum, lost);
        }
        const float weighted = weight[i] * power;
        loss[i] = weighted * entropy;
        if (with_gradient) {
            /* At x = +inf, q is 0 and the entropy infinite. The bound avoids 0 x inf: the derivative is the weight. */
            const float finite = entropy > huge ? huge : entropy;
            const float slope = mode == 0 ? p : gamma * q * finite + p;
            gradient[i] = weighted * slope * scale;
        }
    }
}

#define RN_MODES(with_gradient)                                                                                        \
    do {                                                                                                               \
        if (gamma == 2.0f)                                                                                             \
            RN_FN(background)(x, weight, scale, count, gamma, 2, with_gradient, loss, gradient);                       \
        else if (gamma == 0.0f)                                                                                        \
            RN_FN(background)(x, weight, scale, count, gamma, 0, with_gradient, loss, gradient);                       \
        else if (gamma == 1.0f)                                                                                        \
            RN_FN(background)(x, weight, scale, count, gamma, 1, with_gradient, loss, gradient);                       \
        else                                                                                                           \
            RN_FN(background)(x, weight, scale, count, gamma, -1, with_gradient, loss, gradient);                      \
    } while (0)

/* Return the loss of at most CHUNK elements, and store their gradient unless `gradient` is NULL. */
static double RN_FN(focal_chunk)(const float *restrict x, const float *restrict weight, float scale, int count,
                                 float gamma, float *restrict gradient) {
    float loss[CHUNK];
    if (gradient != NULL)
        RN_MODES(1);
    else
        RN_MODES(0);
    double lanes[RN_LANES] = {0};
    int i = 0;
    for (; i + RN_LANES <= count; i += RN_LANES)
        for (int lane = 0; lane < RN_LANES; lane++) lanes[lane] += (double)loss[i + lane];
    double sum = 0;
    for (int lane = 0; lane < RN_LANES; lane++) sum += lanes[lane];
    for (; i < count; i++) sum += (double)loss[i];
    return sum;
}
#undef RN_MODES

static void RN_FN(from_bfloat16)(const uint16_t *restrict in, int count, float *restrict out) {
    for (int i = 0; i < count; i++) {
        union {
            uint32_t bits;
            float number;
        } value = {.bits = (uint32_t)in[i] << 16};
        out[i] = value.number;
    }
}

/* Round to nearest, ties to even, like torch. NaN stays NaN. */
static void RN_FN(to_bfloat16)(const float *restrict in, int count, uint16_t *restrict out) {
    for (int i = 0; i < count; i++) {
        union {
            float number;
            uint32_t bits;
        } value = {.number = in[i]};
        const uint32_t rounded = (value.bits + 0x7fffu + ((value.bits >> 16) & 1u)) >> 16;
        out[i] = (uint16_t)((value.bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
    }
}

/* A multiplication shifts the exponent, which is correct for subnormal numbers, too. */
static void RN_FN(from_float16)(const uint16_t *restrict in, int count, float *restrict out) {
    for (int i = 0; i < count; i++) {
        const uint32_t half = in[i];
        union {
            uint32_t bits;
            float number;
        } value = {.bits = (half & 0x7fffu) << 13};
        value.number *= 5.192296858534828e33f; /* 2^112 */
        value.bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
        value.bits |= (half & 0x8000u) << 16;
        out[i] = value.number;
    }
}
