/* Bytes on their way: runs to the server, delivery to the client with its hash, the log. */
#include <assert.h>

#include "core/pg/session_impl.h"

void hf_pg_forward_flush(struct hf_pg_session *s)
{
    struct hf_slice run = s->forward;
    s->forward = hf_slice(NULL, 0);
    if (run.n)
        s->ops.send(s->arg, HF_PG_SERVER, run);
}

void hf_pg_forward(struct hf_pg_session *s, struct hf_slice bytes)
{
    if (s->forward.n && s->forward.p + s->forward.n == bytes.p) {
        s->forward.n += bytes.n;
        return;
    }
    hf_pg_forward_flush(s);
    s->forward = bytes;
}

void hf_pg_inject(struct hf_pg_session *s, struct hf_slice bytes)
{
    hf_pg_forward_flush(s);
    s->ops.send(s->arg, HF_PG_SERVER, bytes);
}

/* What was delivered since the last flush goes into the hash: mostly its transaction is over by
 * then, and it need not. */
static void hash_settle(struct hf_pg_session *s)
{
    struct hf_slice bytes = s->unhashed;
    s->unhashed = hf_slice(NULL, 0);
    if (bytes.n)
        hf_hash_stream_add(&s->hash, bytes);
}

uint64_t hf_pg_hash_get(struct hf_pg_session *s, uint64_t ret_hash[2])
{
    hash_settle(s);
    hf_hash_stream_get(&s->hash, ret_hash);
    return s->hash.n;
}

void hf_pg_hash_reset(struct hf_pg_session *s)
{
    s->unhashed = hf_slice(NULL, 0);
    hf_hash_stream_init(&s->hash, s->seed);
}

void hf_pg_deliver_flush(struct hf_pg_session *s)
{
    hash_settle(s);
    struct hf_slice run = s->deliver;
    s->deliver = hf_slice(NULL, 0);
    if (run.n)
        s->ops.send(s->arg, HF_PG_CLIENT, run);
}

static void run_add(struct hf_pg_session *s, struct hf_slice bytes)
{
    if (s->deliver.n && s->deliver.p + s->deliver.n == bytes.p) {
        s->deliver.n += bytes.n;
        return;
    }
    hf_pg_deliver_flush(s);
    s->deliver = bytes;
}

/* Count bytes of the hashed stream; returns how many of them the client had before (X11). */
static size_t count(struct hf_pg_session *s, struct hf_slice bytes)
{
    if (s->failing)
        return bytes.n;
    hash_settle(s);
    if (s->replay_left == 0) {
        hf_hash_stream_add(&s->hash, bytes);
        return 0;
    }
    size_t n = bytes.n < s->replay_left ? bytes.n : (size_t)s->replay_left;
    hf_hash_stream_add(&s->hash, hf_slice(bytes.p, n));
    if (n == s->replay_left) {
        uint64_t got[2];
        hf_hash_stream_get(&s->hash, got);
        if (got[0] != s->replay_hash[0] || got[1] != s->replay_hash[1]) {
            hf_pg_replay_failed(s, "the replayed transaction gave another result");
            return bytes.n;
        }
    }
    s->replay_left -= n;
    if (n < bytes.n)
        hf_hash_stream_add(&s->hash, hf_slice(bytes.p + n, bytes.n - n));
    return n;
}

void hf_pg_deliver(struct hf_pg_session *s, struct hf_slice bytes)
{
    if (s->replay_left == 0 && !s->failing) {
        run_add(s, bytes);
        if (s->unhashed.n && s->unhashed.p + s->unhashed.n == bytes.p) {
            s->unhashed.n += bytes.n;
        } else {
            hash_settle(s);
            s->unhashed = bytes;
        }
        return;
    }
    size_t had = count(s, bytes);
    if (had < bytes.n)
        run_add(s, hf_slice(bytes.p + had, bytes.n - had));
}

void hf_pg_deliver_aside(struct hf_pg_session *s, struct hf_slice bytes)
{
    if (s->replay_left == 0 && !s->failing)
        run_add(s, bytes);
}

/* Of an error the hash has the SQLSTATE only: words and positions may differ. */
void hf_pg_deliver_error(struct hf_pg_session *s, struct hf_slice message)
{
    uint8_t mark[6] = {HF_PG_ERROR};
    struct hf_slice code =
        hf_pg_error_field(hf_slice(message.p + HF_PG_HEAD_LEN, message.n - HF_PG_HEAD_LEN), 'C');
    for (size_t i = 0; i < 5 && i < code.n; i++)
        mark[i + 1] = code.p[i];
    if (count(s, hf_slice(mark, sizeof(mark))) == 0)
        run_add(s, message);
}

bool hf_pg_mid_message(const struct hf_pg_session *s)
{
    bool gets = s->state == HF_PG_RUNNING ||
                (s->state == HF_PG_REPLAYING && s->replay_left == 0 && !s->failing);
    return gets ? s->server_stream && !s->server_stream_hide : s->mid_message;
}

static const uint8_t *ready(char status)
{
    static const uint8_t message[3][6] = {{HF_PG_READY, 0, 0, 0, 5, 'I'},
                                          {HF_PG_READY, 0, 0, 0, 5, 'T'},
                                          {HF_PG_READY, 0, 0, 0, 5, 'E'}};
    return message[status == 'I' ? 0 : status == 'T' ? 1 : 2];
}

void hf_pg_deliver_ready(struct hf_pg_session *s, char status)
{
    if (s->replay_left == 0 && s->n_waiting)
        s->n_waiting--;
    /* the server's own goes with what came before it, in one piece */
    bool same = s->ready.n == 6 && s->ready.p[5] == (uint8_t)status;
    hf_pg_deliver(s, same ? s->ready : hf_slice(ready(status), 6));
    if (s->replay_left == 0 && s->state == HF_PG_RUNNING)
        hf_pg_tell_due(s);
}

void hf_pg_tell_ready(struct hf_pg_session *s)
{
    hf_pg_deliver_flush(s);
    s->ops.send(s->arg, HF_PG_CLIENT, hf_slice(ready(s->tx), 6));
}

/* --- log --- */

static void account(struct hf_pg_session *s)
{
    size_t now = s->log.room + s->refeed.room;
    s->memory->used += now;
    s->memory->used -= s->log_counted;
    s->log_counted = now;
}

void hf_pg_log(struct hf_pg_session *s, struct hf_slice message)
{
    if (s->log_full)
        return;
    if (s->memory->used > s->memory->max) {
        hf_pg_log_drop(s, HF_PG_REASON_MEMORY);
        return;
    }
    size_t room = s->log.room;
    s->log.n_max = s->conf->log_max; /* of the last reload */
    hf_buf_add(&s->log, message);
    if (s->log.err) {
        hf_pg_log_drop(s, HF_PG_REASON_LOG_FULL);
        return;
    }
    hf_pg_unit_last(s)->log_len += message.n;
    if (s->log.room != room)
        account(s);
}

void hf_pg_log_trim(struct hf_pg_session *s, size_t n)
{
    assert(n <= s->log.n);
    hf_pg_saved_log_cut(s, n);
    if (n == s->log.n) {
        hf_buf_clear(&s->log);
        if (s->log.room > 512) {
            hf_buf_fini(&s->log);
            account(s);
        }
    } else {
        hf_buf_consume(&s->log, n);
    }
    hf_pg_hash_reset(s);
}

/* From here on the transaction can't be replayed. */
void hf_pg_log_drop(struct hf_pg_session *s, uint32_t reason)
{
    s->passing |= reason;
    s->log_full = true;
    hf_pg_saved_log_cut(s, s->log.n);
    hf_buf_fini(&s->log);
    account(s);
    for (uint32_t i = 0; i < s->n_units; i++)
        hf_pg_unit_at(s, i)->log_len = 0;
    s->log_block = 0;
    hf_pg_tell_reasons(s);
}

/* An error of our own. */
void hf_pg_tell_error(struct hf_pg_session *s, const char *sqlstate, const char *message,
                      const char *detail)
{
    struct hf_buf b;
    hf_buf_init(&b, 1024);
    hf_pg_put_error(&b, HF_PG_ERROR,
                    &(struct hf_pg_error){.severity = "ERROR",
                                          .sqlstate = sqlstate,
                                          .message = message,
                                          .detail = detail && *detail ? detail : NULL});
    hf_pg_deliver_flush(s);
    s->ops.send(s->arg, HF_PG_CLIENT, hf_buf_slice(&b));
    hf_buf_fini(&b);
}
