/* The dashboard's files, as they are in dashboard/. */
#include <string.h>

#include "dashboard_css.h"
#include "dashboard_html.h"
#include "dashboard_icon.h"
#include "dashboard_js.h"
#include "hostd/web_impl.h"

#define FILE_OF(name) dashboard_##name, sizeof(dashboard_##name)

static const struct {
    const char *path, *type;
    const unsigned char *bytes;
    size_t n;
} files[] = {
    {"/", "text/html; charset=utf-8", FILE_OF(html)},
    {"/dashboard.css", "text/css; charset=utf-8", FILE_OF(css)},
    {"/dashboard.js", "text/javascript; charset=utf-8", FILE_OF(js)},
    {"/icon.svg", "image/svg+xml", FILE_OF(icon)},
};

bool hf_web_file_get(struct hf_http_req *req, const char *path)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(files); i++) {
        if (strcmp(path, files[i].path) == 0) {
            hf_http_reply(req, 200, files[i].type, hf_slice(files[i].bytes, files[i].n));
            return true;
        }
    }
    return false;
}
