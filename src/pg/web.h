/* /metrics for Prometheus. */
#pragma once

#include "pg/pg.h"

/** Open pg.metrics_listen; *ret_web is NULL if it is none. */
HF_MUST int hf_pg_web_open(struct hf_pg *pg, struct hf_err *err, struct hf_pg_web **ret_web);
void hf_pg_web_close(struct hf_pg_web *w);
