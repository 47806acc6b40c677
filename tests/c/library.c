/* What the library says about itself, and the layouts that never change. */
#include "check.h"

#include <stddef.h>

/* Every device has a name that loading takes, and the first is the processor. */
static void devices(void) {
    uint32_t i, n = grug_device_count();
    grug_device device = { .size = sizeof device };
    CHECK(n >= 1 && n == grug_device_count());
    for (i = 0; i < n; i++) {
        OK(grug_device_get(i, &device, &err));
        CHECK(device.size == sizeof device && strlen(device.name) > 0 && strlen(device.description) > 0);
        CHECK(i > 0 ? device.kind == GRUG_DEVICE_CUDA || device.kind == GRUG_DEVICE_WGPU
                    : device.kind == GRUG_DEVICE_CPU && strcmp(device.name, "cpu") == 0);
    }
    FAILS(GRUG_ENOTFOUND, "device", grug_device_get(n, &device, &err));
    FAILS(GRUG_EINVAL, "out", grug_device_get(0, NULL, &err));
    device.size = 8;
    FAILS(GRUG_EINVAL, "grug_device.size", grug_device_get(0, &device, &err));
}

void test_library(void) {
    int32_t status;
    CHECK(grug_abi_version() == GRUG_ABI_VERSION);
    CHECK(grug_version()[0] >= '0' && grug_version()[0] <= '9');

    CHECK(sizeof(grug_error) == 256 && offsetof(grug_error, message) == 4);
    CHECK(sizeof(grug_bytes) == 2 * sizeof(void *));

    CHECK(strcmp(grug_status_name(GRUG_OK), "GRUG_OK") == 0);
    CHECK(strcmp(grug_status_name(GRUG_STOP_SEQUENCE), "GRUG_OK") == 0);
    CHECK(strcmp(grug_status_name(255), "GRUG_OK") == 0);
    CHECK(strcmp(grug_status_name(GRUG_EINVAL), "GRUG_EINVAL") == 0);
    CHECK(strcmp(grug_status_name(GRUG_ESPACE), "GRUG_ESPACE") == 0);
    CHECK(strcmp(grug_status_name(GRUG_EPANIC), "GRUG_EPANIC") == 0);
    for (status = -1; status >= GRUG_EPANIC; status--) {
        CHECK(strncmp(grug_status_name(status), "GRUG_E", 6) == 0 && strlen(grug_status_name(status)) > 7);
    }
    CHECK(strcmp(grug_status_name(-1000), "GRUG_E?") == 0);
    CHECK(strcmp(grug_status_name(INT32_MIN), "GRUG_E?") == 0);

    devices();

    /* Freeing nothing is fine, and so is triggering nothing. */
    grug_model_free(NULL);
    grug_session_free(NULL);
    grug_sampler_free(NULL);
    grug_cancel_free(NULL);
    grug_grammar_free(NULL);
    grug_cancel_trigger(NULL);
    grug_cancel_reset(NULL);
    CHECK(grug_session_position(NULL) == 0);
}
