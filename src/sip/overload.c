/* When a worker sheds load: levels with hysteresis. */
#include "sip/overload.h"

#define CPU_HIGH 920
#define CPU_LOW 800
#define QUEUE_NEW 250
#define QUEUE_ALL 600
#define QUEUE_BACK 300
#define QUEUE_LOW 100
#define CALM HF_S(2)

enum hf_sip_shed hf_sip_overload_step(struct hf_sip_overload *o, unsigned cpu, unsigned queue,
                                      hf_time now)
{
    o->n_busy = cpu >= CPU_HIGH ? o->n_busy + 1 : 0;
    if (cpu >= CPU_LOW || queue >= QUEUE_LOW) {
        o->calm_since = 0;
    } else if (o->calm_since == 0) {
        o->calm_since = now;
    }
    if (queue >= QUEUE_ALL) {
        o->level = HF_SIP_SHED_ALL;
    } else if (o->level == HF_SIP_SHED_ALL && queue < QUEUE_BACK) {
        o->level = HF_SIP_SHED_NEW;
    } else if (o->level == HF_SIP_SHED_NOTHING && (queue >= QUEUE_NEW || o->n_busy >= 2)) {
        o->level = HF_SIP_SHED_NEW;
    } else if (o->level == HF_SIP_SHED_NEW && o->calm_since && now - o->calm_since >= CALM) {
        o->level = HF_SIP_SHED_NOTHING;
    }
    return o->level;
}
