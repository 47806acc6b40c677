/* What the library says about itself, and the layouts that never change. */
#include "check.h"

#include <stddef.h>

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

    /* Freeing nothing is fine, and so is triggering nothing. */
    grug_model_free(NULL);
    grug_session_free(NULL);
    grug_sampler_free(NULL);
    grug_cancel_free(NULL);
    grug_cancel_trigger(NULL);
    grug_cancel_reset(NULL);
    CHECK(grug_session_position(NULL) == 0);
}
