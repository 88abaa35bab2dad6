/* fuzz_config.c - any text as config.json; what is taken lies in the ranges that later sizes are
 * computed from.
 */
#include "common/gemma2_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct gemma2_config config;
    int status = gemma2_config_parse(&config, (const char *)bytes, size, "input");
    if (status != 0) {
        require(config.sliding == NULL);
        return 0;
    }
    require(config.layers >= 1 && config.layers <= 1024);
    for (uint32_t i = 0; i < config.layers; i++)
        require(config.sliding[i] <= 1);
    require(config.key_heads >= 1 && config.heads % config.key_heads == 0);
    require(config.head_dim >= 2 && config.head_dim % 2 == 0);
    require((uint64_t)config.heads * config.head_dim <= 1u << 20);
    require(config.width >= 1 && config.width <= 1u << 17 && config.inner >= 1);
    require(config.bos_id < config.vocab && config.vocab <= 1u << 22);
    require((float)config.rms_eps > 0 && (float)config.rope_theta > 0);
    require((float)config.query_scalar > 0);
    require(config.attention_cap >= 0 && config.final_cap >= 0);
    gemma2_config_free(&config);
    return 0;
}
