#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

RN_EXPORT int rn_abi(void) { return RN_ABI; }

/* -1 until the first call of rn_isa. Two concurrent first calls store the same number. */
static atomic_int chosen_isa = -1;

static int best_isa(void) {
#if RN_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt"))
        return RN_BASELINE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
        return RN_AVX2;
    return RN_AVX512;
#else
    return RN_BASELINE;
#endif
}

int rn_isa(void) {
    int isa = atomic_load_explicit(&chosen_isa, memory_order_relaxed);
    if (isa < 0) {
        isa = best_isa();
        atomic_store_explicit(&chosen_isa, isa, memory_order_relaxed);
    }
    return isa;
}

RN_EXPORT int rn_get_isa(void) { return rn_isa(); }

/* Choose the instruction set; -1 chooses the best. Return the set in use, which is one that the processor supports. */
RN_EXPORT int rn_set_isa(int isa) {
    const int best = best_isa();
    if (isa < 0 || isa > best) isa = best;
    atomic_store_explicit(&chosen_isa, isa, memory_order_relaxed);
    return isa;
}

enum { MOST_THREADS = 256 };

static _Atomic(rn_team) chosen_team;

RN_EXPORT int rn_set_team(rn_team team) {
    atomic_store_explicit(&chosen_team, team, memory_order_relaxed);
    return 0;
}

typedef struct {
    rn_task task;
    void *context;
    int64_t blocks;
    _Atomic int64_t next;
    _Atomic int taken; /* number of worker indices given to threads of the team */
} loop;

typedef struct {
    loop *loop;
    int worker;
} seat;

static void *work(void *argument) {
    const seat *own = argument;
    loop *const l = own->loop;
    for (;;) {
        const int64_t block = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        if (block >= l->blocks) return NULL;
        l->task(l->context, block, own->worker);
    }
}

static void work_in_team(void *argument) {
    loop *const l = argument;
    seat own = {l, atomic_fetch_add_explicit(&l->taken, 1, memory_order_relaxed)};
    work(&own);
}

void rn_parallel(int64_t blocks, int threads, rn_task task, void *context) {
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    loop l = {.task = task, .context = context, .blocks = blocks};
    atomic_init(&l.next, 0);
    atomic_init(&l.taken, 0);
    const rn_team team = atomic_load_explicit(&chosen_team, memory_order_relaxed);
    if (team != NULL && threads > 1 && blocks > 1) {
        /* All threads, even for fewer blocks: a smaller team would end threads that the next call needs. */
        team(work_in_team, &l, (unsigned)threads, 0);
        return;
    }
    if (threads > blocks) threads = (int)blocks;
    pthread_t started[MOST_THREADS];
    seat seats[MOST_THREADS];
    int count = 0;
    if (threads > 1) {
        /* The new threads must not receive signals: Python handles signals in its own threads. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        for (int worker = 1; worker < threads; worker++) {
            seats[count] = (seat){&l, worker};
            if (pthread_create(&started[count], NULL, work, &seats[count]) != 0) break;
            count++;
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    seat own = {&l, 0};
    work(&own);
    for (int i = 0; i < count; i++) pthread_join(started[i], NULL);
}
