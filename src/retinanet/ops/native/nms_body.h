/* Return whether the IoU of the box with one of `count` kept boxes is above `most`. The arrays are padded with NaN to a
   multiple of LANES. The float operations and their order are those of torchvision. */
static int RN_FN(suppressed)(const float *box, const kept_boxes *kept, int64_t count, float most) {
    const float x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    const float area = (x2 - x1) * (y2 - y1);
    for (int64_t i = 0; i < count; i += LANES) {
        const float *restrict kx1 = kept->x1 + i, *restrict ky1 = kept->y1 + i, *restrict kx2 = kept->x2 + i,
                              *restrict ky2 = kept->y2 + i, *restrict karea = kept->area + i;
        int touch = 0, hit = 0;
        for (int l = 0; l < LANES; l++) touch |= (kx1[l] < x2) & (kx2[l] > x1) & (ky1[l] < y2) & (ky2[l] > y1);
        if (!touch) continue;
        for (int l = 0; l < LANES; l++) {
            const float left = kx1[l] > x1 ? kx1[l] : x1, top = ky1[l] > y1 ? ky1[l] : y1;
            const float right = kx2[l] < x2 ? kx2[l] : x2, bottom = ky2[l] < y2 ? ky2[l] : y2;
            const float width = right - left > 0.0f ? right - left : 0.0f;
            const float height = bottom - top > 0.0f ? bottom - top : 0.0f;
            const float common = width * height;
            hit |= common / (karea[l] + area - common) > most;
        }
        if (hit) return 1;
    }
    return 0;
}
