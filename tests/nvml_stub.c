/* A libnvidia-ml.so.1 without hardware: says what the text file NVML_STUB describes, a line each.
 *
 *   init CODE                                  nvmlInitWithFlags returns CODE
 *   shutdown FILE                              nvmlShutdown appends a line to FILE
 *   gpu UUID MEMORY NAME...                    a GPU; the lines below it are about it
 *   lost CODE                                  its handle cannot be had: CODE
 *   sick CODE                                  it has a handle by index, none by UUID: CODE
 *   ecc COUNT | remap PENDING FAILED           its health; without the line: not supported
 *   process PID BYTES                          a compute process
 *   mig SLOTS                                  MIG mode is on, with room for SLOTS instances
 *   instance SLOT UUID GI CI MEMORY NAME...    an instance in one of them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

typedef struct device {
    char uuid[96], name[96];
    unsigned long long memory, ecc;
    int lost, sick, has_ecc, has_remap, mig, slots, slot, gi, ci, processes;
    unsigned pending, failed, pids[8];
    unsigned long long used[8];
    struct device *parent;
} device;

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
typedef struct { unsigned long long total, free, used; } memory;

static device gpus[64], instances[64];
static unsigned n_gpus, n_instances;
static int init_code, started;
static char shutdown_file[512];

static void read_line(char *line) {
    device *gpu = n_gpus ? &gpus[n_gpus - 1] : NULL, *made;
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "init %d", &init_code) == 1 || sscanf(line, "shutdown %511s", shutdown_file) == 1) return;
    if (!strncmp(line, "gpu ", 4)) {
        made = &gpus[n_gpus++];
        sscanf(line, "gpu %95s %llu %95[^\n]", made->uuid, &made->memory, made->name);
    } else if (gpu && !strncmp(line, "instance ", 9)) {
        made = &instances[n_instances++];
        made->parent = gpu;
        sscanf(line, "instance %d %95s %d %d %llu %95[^\n]", &made->slot, made->uuid, &made->gi, &made->ci,
               &made->memory, made->name);
    } else if (gpu) {
        int i = gpu->processes;
        sscanf(line, "lost %d", &gpu->lost);
        sscanf(line, "sick %d", &gpu->sick);
        gpu->has_ecc |= sscanf(line, "ecc %llu", &gpu->ecc) == 1;
        gpu->has_remap |= sscanf(line, "remap %u %u", &gpu->pending, &gpu->failed) == 2;
        gpu->mig |= sscanf(line, "mig %d", &gpu->slots) == 1;
        gpu->processes += sscanf(line, "process %u %llu", &gpu->pids[i], &gpu->used[i]) == 2;
    }
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    char line[1024];
    const char *path = getenv("NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    n_gpus = n_instances = 0;
    memset(gpus, 0, sizeof gpus);
    memset(instances, 0, sizeof instances);
    while (file && fgets(line, sizeof line, file)) read_line(line);
    if (file) fclose(file);
    started = !init_code;
    return init_code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (!started) return UNINITIALIZED;
    started = 0;
    FILE *file = *shutdown_file ? fopen(shutdown_file, "a") : NULL;
    if (file) { fputs("shutdown\n", file); fclose(file); }
    return OK;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case 999: return "Unknown Error";
    default: return "Some other error";
    }
}

static int text(char *to, unsigned size, const char *from) {
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

int nvmlSystemGetDriverVersion(char *to, unsigned size) { return text(to, size, "570.00"); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!started) return UNINITIALIZED;
    *count = n_gpus;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out) {
    if (!started) return UNINITIALIZED;
    if (index >= n_gpus) return INVALID;
    *out = &gpus[index];
    return gpus[index].lost;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **out) {
    if (!started) return UNINITIALIZED;
    for (unsigned i = 0; i < n_gpus; i++)
        if (!strcmp(gpus[i].uuid, uuid)) { *out = &gpus[i]; return gpus[i].lost ? gpus[i].lost : gpus[i].sick; }
    for (unsigned i = 0; i < n_instances; i++)
        if (!strcmp(instances[i].uuid, uuid)) { *out = &instances[i]; return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(device *d, char *to, unsigned size) { return text(to, size, d->uuid); }
int nvmlDeviceGetName(device *d, char *to, unsigned size) { return text(to, size, d->name); }

int nvmlDeviceGetMemoryInfo(device *d, memory *out) {
    if (!d->memory) return NOT_SUPPORTED;
    out->total = out->free = d->memory;
    out->used = 0;
    return OK;
}

int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) {
    if (!strstr(d->name, "A100") && !d->mig) return NOT_SUPPORTED;
    *current = *pending = d->mig;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *count) { *count = d->slots; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned slot, device **out) {
    for (unsigned i = 0; i < n_instances; i++)
        if (instances[i].parent == d && instances[i].slot == (int)slot) { *out = &instances[i]; return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(device *d, unsigned *id) { *id = d->gi; return OK; }
int nvmlDeviceGetComputeInstanceId(device *d, unsigned *id) { *id = d->ci; return OK; }

int nvmlDeviceGetTotalEccErrors(device *d, int kind, int counter, unsigned long long *count) {
    if (kind != 1 || counter != 0) return INVALID; /* uncorrectable, volatile */
    if (!d->has_ecc) return NOT_SUPPORTED;
    *count = d->ecc;
    return OK;
}

int nvmlDeviceGetRemappedRows(device *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    if (!d->has_remap) return NOT_SUPPORTED;
    *corrected = *uncorrected = 0;
    *pending = d->pending;
    *failed = d->failed;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *out) {
    unsigned room = *count;
    *count = d->processes;
    if (room < *count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) out[i] = (process){.pid = d->pids[i], .used = d->used[i]};
    return OK;
}
