static double RN_FN(sum_block)(const float *values, int64_t count) {
    double lanes[RN_LANES] = {0};
    int64_t i = 0;
    for (; i + RN_LANES <= count; i += RN_LANES)
        for (int lane = 0; lane < RN_LANES; lane++) lanes[lane] += (double)values[i + lane];
    double sum = 0;
    for (int lane = 0; lane < RN_LANES; lane++) sum += lanes[lane];
    for (; i < count; i++) sum += (double)values[i];
    return sum;
}
