/* A driver for a GPU that is not there: NVML's calls over a power curve whose integral is known exactly.
 *
 * Built by the tests into libnvidia-ml.so.1 and loaded by NVIDIA's own Python binding, so that what is tested is the whole way
 * from the C interface to the record. Types and error codes follow nvml.h.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, SMALL = 7, LOST = 15 };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };
enum { CONSTANT, STEP, SINE, SQUARE, TRACE };
enum { DEVICES = 8, FIELD_ENERGY = 83, FIELD_POWER_AVERAGE = 185, FIELD_POWER_INSTANT = 186 };

typedef struct {
    int kind;
    double low, high, period, duty, at; /* of the power curve, in watts and seconds */
    int points;
    double *t, *w, *e; /* a recorded trace: seconds, watts, joules up to there */
    double tick, phase, gain, noise;
    double jitter;           /* refreshes of the counter come up to so many seconds early or late */
    double seen;             /* the counter adds up what its sensor sees: so many seconds at the end of each tick; 0: all */
    double refresh, average; /* of the power: held for so long, and the mean over so long; 0: the instant */
    double held_at;          /* of the power: where in its time its refreshes lie */
    double behind;           /* the counter shows what was drawn up to so many seconds ago */
    double seen_ticks, seen_joules;
    double frozen_at, reset_at, lost_at, counter_until;
    int counter, instant, usage;
    int arch;       /* NVML's number of the architecture, or less than 0: the driver does not know the call */
    double module;  /* watts of a module beside the GPU; the counter is the module's then, unless it is its own. 0: no module */
    double memory;  /* watts of the GPU's memory, told as an average only. 0: not told */
    int unscoped;   /* whether the GPU's own instant power is not told, a module's only */
    int own;        /* whether the counter is the GPU's though there is a module */
    int socket;     /* number of the CPU socket beside it, or less than 0: the driver does not tell */
    int model;        /* 1: one whose sensor is known to look now and then */
    int energy_field; /* whether fields give the energy too: 0 no, 1 yes, 2 another number than the call's */
    int mig, instances, slices, virtualisation; /* slices: of each instance, of 7 */
    int temperature, clock, throttle;
    int busy; /* per cent of the time while the power is high, 0 while it is low; below 0: not told */
    int pids[8], pid_count;
    int closed, unnamed, silent; /* NVML's error in answer to what is asked for the handle, the UUID, and a number */
    uint64_t reads;
} Device;

static Device devices[DEVICES];
static int count, started;
static double now_manual, origin, speed;
static uint64_t seed = 88172645463325252ull;

static double monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double now(void) { return speed > 0 ? (monotonic() - origin) * speed : now_manual; }

static double uniform(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) * (1.0 / 9007199254740992.0);
}

static int segment(const Device *d, double t) {
    int a = 0, b = d->points - 1;
    while (b - a > 1) {
        int m = (a + b) / 2;
        if (d->t[m] <= t) a = m; else b = m;
    }
    return a;
}

static double power(const Device *d, double t) {
    switch (d->kind) {
    case STEP: return t < d->at ? d->low : d->high;
    case SINE: return (d->low + d->high) / 2 + (d->high - d->low) / 2 * sin(2 * M_PI * t / d->period);
    case SQUARE: return fmod(t, d->period) < d->duty * d->period ? d->high : d->low;
    case TRACE: {
        if (t <= d->t[0]) return d->w[0];
        if (t >= d->t[d->points - 1]) return d->w[d->points - 1];
        int i = segment(d, t);
        return d->w[i] + (d->w[i + 1] - d->w[i]) * (t - d->t[i]) / (d->t[i + 1] - d->t[i]);
    }
    default: return d->high;
    }
}

static double energy(const Device *d, double t) {
    switch (d->kind) {
    case STEP: return t < d->at ? d->low * t : d->low * d->at + d->high * (t - d->at);
    case SINE:
        return (d->low + d->high) / 2 * t + (d->high - d->low) / 2 * d->period / (2 * M_PI) * (1 - cos(2 * M_PI * t / d->period));
    case SQUARE: {
        double whole = floor(t / d->period), part = t - whole * d->period, on = d->duty * d->period;
        double turn = on * d->high + (d->period - on) * d->low;
        return whole * turn + (part < on ? part * d->high : on * d->high + (part - on) * d->low);
    }
    case TRACE: {
        int last = d->points - 1;
        if (t <= d->t[0]) return d->w[0] * (t - d->t[0]);
        if (t >= d->t[last]) return d->e[last] + d->w[last] * (t - d->t[last]);
        int i = segment(d, t);
        return d->e[i] + (d->w[i] + power(d, t)) / 2 * (t - d->t[i]);
    }
    default: return d->high * t;
    }
}

/* What the tests turn. */
void fake_reset(int devices_wanted) {
    for (int i = 0; i < DEVICES; i++) {
        free(devices[i].t);
        free(devices[i].w);
        free(devices[i].e);
    }
    memset(devices, 0, sizeof devices);
    count = devices_wanted;
    now_manual = speed = 0;
    for (int i = 0; i < DEVICES; i++) {
        Device *d = &devices[i];
        d->high = 200;
        d->tick = 0.1;
        d->gain = 1;
        d->frozen_at = d->reset_at = d->lost_at = d->counter_until = INFINITY;
        d->counter = d->instant = d->usage = d->energy_field = 1;
        d->temperature = 40;
        d->arch = 8;
        d->clock = 1500;
        d->busy = 100;
    }
}

void fake_now(double seconds) { now_manual = seconds; }

void fake_run(double times_real) {
    origin = monotonic();
    speed = times_real;
}

double fake_clock(void) { return now(); }
double fake_energy(int device, double t) { return energy(&devices[device], t); }
double fake_power(int device, double t) { return power(&devices[device], t); }
double fake_reads(int device) { return (double)devices[device].reads; }

int fake_set(int device, const char *name, double value) {
    Device *d = &devices[device];
#define DOUBLE(field) if (!strcmp(name, #field)) { d->field = value; return 0; }
#define INTEGER(field) if (!strcmp(name, #field)) { d->field = (int)value; return 0; }
    INTEGER(kind) DOUBLE(low) DOUBLE(high) DOUBLE(period) DOUBLE(duty) DOUBLE(at) DOUBLE(tick) DOUBLE(phase) DOUBLE(gain) DOUBLE(noise)
    DOUBLE(jitter) DOUBLE(seen) DOUBLE(refresh) DOUBLE(average)
    DOUBLE(frozen_at) DOUBLE(reset_at) DOUBLE(lost_at) DOUBLE(counter_until) INTEGER(counter) INTEGER(instant) INTEGER(usage)
    DOUBLE(held_at) DOUBLE(behind) INTEGER(arch) DOUBLE(module) DOUBLE(memory) INTEGER(own) INTEGER(unscoped) INTEGER(socket)
    INTEGER(energy_field) INTEGER(model)
    INTEGER(mig) INTEGER(instances) INTEGER(slices) INTEGER(virtualisation) INTEGER(temperature) INTEGER(clock) INTEGER(throttle) INTEGER(busy)
    INTEGER(pid_count) INTEGER(closed) INTEGER(unnamed) INTEGER(silent)
    if (!strcmp(name, "pid")) {
        d->pids[d->pid_count++] = (int)value;
        return 0;
    }
    return 1;
}

void fake_trace(int device, int points, const double *t, const double *w) {
    Device *d = &devices[device];
    d->kind = TRACE;
    d->points = points;
    d->t = malloc(points * sizeof(double));
    d->w = malloc(points * sizeof(double));
    d->e = malloc(points * sizeof(double));
    memcpy(d->t, t, points * sizeof(double));
    memcpy(d->w, w, points * sizeof(double));
    d->e[0] = 0;
    for (int i = 1; i < points; i++) d->e[i] = d->e[i - 1] + (w[i] + w[i - 1]) / 2 * (t[i] - t[i - 1]);
}

/* NVML. A handle is the address of a device. */
static int bad(const Device *d) { return !started ? UNINITIALIZED : now() >= d->lost_at ? LOST : d->silent; }
#define CHECK(d) do { int e = bad(d); if (e) return e; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; started++; return count < 0 ? 9 : OK; }
int nvmlShutdown(void) { started--; return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case LOST: return "GPU is lost";
    case 999: return "Unknown Error";
    case 9: return "Driver Not Loaded";
    default: return "error of the fake driver";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "999.1"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *found) { *found = (unsigned)count; return started ? OK : UNINITIALIZED; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **d) {
    if ((int)index >= count) return NOT_FOUND;
    if (devices[index].closed) return devices[index].closed;
    if (now() >= devices[index].lost_at) return LOST;
    *d = &devices[index];
    return OK;
}

int nvmlDeviceGetUUID(Device *d, char *text, unsigned length) {
    if (d->unnamed) return d->unnamed;
    snprintf(text, length, "GPU-%08d-fake", (int)(d - devices));
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **d) {
    int index;
    if (sscanf(uuid, "MIG-%d", &index) != 1 && sscanf(uuid, "GPU-%d", &index) != 1) return NOT_FOUND;
    if (index >= count) return NOT_FOUND;
    *d = &devices[index];
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *instance, Device **d) { *d = instance; return OK; }

int nvmlDeviceGetName(Device *d, char *text, unsigned length) {
    static const char *models[] = {"Fake GPU", "Fake A100", "Fake H100", "NVIDIA RTX A1000", "NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA A100X"};
    snprintf(text, length, "%s", models[d->model]);
    return OK;
}

int nvmlDeviceGetArchitecture(Device *d, unsigned *arch) {
    if (d->arch < 0) return NOT_SUPPORTED;
    *arch = (unsigned)d->arch;
    return OK;
}

int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    *current = *pending = (unsigned)d->mig;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *d, unsigned *most) { *most = d->mig ? 7 : 0; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned index, Device **instance) {
    if ((int)index >= d->instances) return NOT_FOUND;
    *instance = d;
    return OK;
}

typedef struct { unsigned processors, copy, decode, encode, jpeg, ofa, gpu_slices, compute_slices; unsigned long megabytes; } Attributes;

int nvmlDeviceGetAttributes_v2(Device *instance, Attributes *found) {
    if (instance->slices <= 0) return NOT_SUPPORTED;
    *found = (Attributes){.gpu_slices = (unsigned)instance->slices, .compute_slices = (unsigned)instance->slices};
    return OK;
}

int nvmlDeviceGetVirtualizationMode(Device *d, uint32_t *mode) { *mode = (uint32_t)d->virtualisation; return OK; }

int nvmlDeviceGetCpuAffinityWithinScope(Device *d, unsigned size, unsigned long *set, unsigned scope) {
    if (d->socket < 0 || scope != 1) return NOT_SUPPORTED;
    for (unsigned i = 0; i < size; i++) set[i] = i == 0 ? 1ul << d->socket : 0;
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *milliwatts) { (void)d; *milliwatts = 350000; return OK; }

static double chance(double number) {
    double x = sin(number * 12.9898) * 43758.5453;
    return x - floor(x);
}

static double refreshed(const Device *d, double number) {
    return d->phase + d->tick * number + d->jitter * (2 * chance(number) - 1);
}

/* What a counter shows whose sensor looks for a part of each tick only; time must not run backwards. */
static double counted(Device *d, double number) {
    if (d->seen <= 0) return energy(d, refreshed(d, number) - d->behind);
    if (d->seen_ticks == 0) {
        d->seen_ticks = number;
        d->seen_joules = energy(d, refreshed(d, number));
    }
    while (d->seen_ticks < number) {
        double end = refreshed(d, ++d->seen_ticks);
        d->seen_joules += (energy(d, end - d->behind) - energy(d, end - d->behind - d->seen)) / d->seen * d->tick;
    }
    return d->seen_joules;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *millijoules) {
    CHECK(d);
    double t = now();
    d->reads++;
    if (!d->counter || t >= d->counter_until) return NOT_SUPPORTED;
    t = fmin(t, d->frozen_at);
    double joules = energy(d, t - d->behind);
    if (d->tick > 0) {
        double number = floor((t - d->phase) / d->tick) + 1;
        while (refreshed(d, number) > t) number--;
        joules = counted(d, number);
        t = refreshed(d, number);
    }
    joules = d->gain * joules + (d->own ? 0 : d->module * t) + 1e6; /* a driver that has run for a while */
    if (t >= d->reset_at) joules -= d->gain * energy(d, d->reset_at) + 1e6;
    *millijoules = (unsigned long long)fmax(joules * 1000, 0);
    return OK;
}

static double sensor(Device *d) {
    double t = now(), a = uniform(), b = uniform();
    if (d->refresh > 0) { /* the noise is held, too */
        double number = floor((t - d->held_at) / d->refresh);
        t = number * d->refresh + d->held_at;
        a = chance(number + 0.3);
        b = chance(number + 0.7);
    }
    double gauss = sqrt(-2 * log(a + 1e-300)) * cos(2 * M_PI * b);
    double watts = d->average > 0 ? (energy(d, t) - energy(d, t - d->average)) / d->average : power(d, t);
    return fmax(watts * (1 + d->noise * gauss), 0);
}

int nvmlDeviceGetPowerUsage(Device *d, unsigned *milliwatts) {
    CHECK(d);
    if (!d->usage) return NOT_SUPPORTED;
    *milliwatts = (unsigned)(sensor(d) * 1000);
    return OK;
}

typedef struct {
    unsigned field, scope;
    int64_t timestamp, latency;
    int type, result;
    union { double d; unsigned u; unsigned long ul; unsigned long long ull; } value;
} Field;

int nvmlDeviceGetFieldValues(Device *d, int fields, Field *values) {
    CHECK(d);
    for (int i = 0; i < fields; i++) {
        Field *v = &values[i];
        v->result = NOT_SUPPORTED;
        if (v->field == FIELD_POWER_INSTANT && d->instant && ((v->scope == 0 && !d->unscoped) || (v->scope == 1 && d->module > 0))) {
            double watts = sensor(d) + (v->scope == 1 ? d->module : 0);
            *v = (Field){.field = v->field, .scope = v->scope, .type = UNSIGNED_INT, .value.u = (unsigned)(watts * 1000)};
        } else if (v->field == FIELD_POWER_AVERAGE && v->scope == 2 && d->memory > 0) {
            *v = (Field){.field = v->field, .scope = v->scope, .type = UNSIGNED_INT, .value.u = (unsigned)(d->memory * 1000)};
        } else if (v->field == FIELD_ENERGY && d->energy_field) {
            v->type = UNSIGNED_LONG_LONG;
            v->result = nvmlDeviceGetTotalEnergyConsumption(d, &v->value.ull);
            if (d->energy_field == 2) v->value.ull *= 2;
        }
    }
    return OK;
}

typedef struct { unsigned version; int sensor, temperature; } Temperature;
int nvmlDeviceGetTemperatureV(Device *d, Temperature *t) { CHECK(d); t->temperature = d->temperature; return OK; }
int nvmlDeviceGetClockInfo(Device *d, int type, unsigned *mhz) { CHECK(d); (void)type; *mhz = (unsigned)d->clock; return OK; }

int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *mask) {
    CHECK(d);
    *mask = (unsigned long long)d->throttle;
    return OK;
}

typedef struct { unsigned gpu, memory; } Utilisation;

int nvmlDeviceGetUtilizationRates(Device *d, Utilisation *rates) {
    CHECK(d);
    if (d->busy < 0) return NOT_SUPPORTED;
    rates->gpu = power(d, now()) > (d->low + d->high) / 2 ? (unsigned)d->busy : 0;
    rates->memory = 0;
    return OK;
}

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *found, Process *list) {
    CHECK(d);
    unsigned room = *found;
    *found = (unsigned)d->pid_count;
    if (d->pid_count == 0) return OK;
    if (list == NULL || room < *found) return SMALL;
    for (int i = 0; i < d->pid_count; i++) list[i] = (Process){(unsigned)d->pids[i], 1 << 20, ~0u, ~0u};
    return OK;
}
