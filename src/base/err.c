#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hf_strerror(int code)
{
    switch (-code) {
#define HF_ERR_TEXT(name, num, text)                                                               \
    case num:                                                                                      \
        return text;
        HF_ERR_LIST(HF_ERR_TEXT)
#undef HF_ERR_TEXT
    case 0:
        return "success";
    default: {
        const char *s = code < 0 && code > -1000 ? strerrordesc_np(-code) : NULL;
        return s ? s : "unknown error";
    }
    }
}

const char *hf_errname(int code)
{
    switch (-code) {
#define HF_ERR_NAME(name, num, text)                                                               \
    case num:                                                                                      \
        return #name;
        HF_ERR_LIST(HF_ERR_NAME)
#undef HF_ERR_NAME
    default:
        return NULL;
    }
}

int hf_err_set(struct hf_err *e, int code, const char *fmt, ...)
{
    if (e) {
        e->code = code;
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof(e->text), fmt, ap);
        va_end(ap);
    }
    return code;
}
