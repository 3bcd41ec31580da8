/* PostgreSQL's frontend/backend protocol, 3.0 and 3.2: message heads, start-up packets, bodies. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/rd.h"
#include "base/slice.h"

/*
 * https://www.postgresql.org/docs/current/protocol-message-formats.html. Readers are total, bounded
 * and allocation-free; builders append to a hf_buf, whose sticky error tells what did not fit.
 */

#define HF_PG_VERSION_3_0 0x00030000u
#define HF_PG_VERSION_3_2 0x00030002u
#define HF_PG_STARTUP_MAX 10000  /* as PostgreSQL's MAX_STARTUP_PACKET_LENGTH */
#define HF_PG_CANCEL_KEY_MAX 256 /* 3.2; 4 in 3.0 */
#define HF_PG_HEAD_LEN 5

/* First bytes of messages; both directions share some. */
enum hf_pg_front {
    HF_PG_BIND = 'B',
    HF_PG_CLOSE = 'C',
    HF_PG_COPY_DATA = 'd',
    HF_PG_COPY_DONE = 'c',
    HF_PG_COPY_FAIL = 'f',
    HF_PG_DESCRIBE = 'D',
    HF_PG_EXECUTE = 'E',
    HF_PG_FLUSH = 'H',
    HF_PG_FUNCTION_CALL = 'F',
    HF_PG_PARSE = 'P',
    HF_PG_PASSWORD = 'p', /* also SASLInitialResponse, SASLResponse, GSSResponse */
    HF_PG_QUERY = 'Q',
    HF_PG_SYNC = 'S',
    HF_PG_TERMINATE = 'X',
};
enum hf_pg_back {
    HF_PG_AUTHENTICATION = 'R',
    HF_PG_BACKEND_KEY_DATA = 'K',
    HF_PG_BIND_COMPLETE = '2',
    HF_PG_CLOSE_COMPLETE = '3',
    HF_PG_COMMAND_COMPLETE = 'C',
    HF_PG_COPY_IN = 'G',
    HF_PG_COPY_OUT = 'H',
    HF_PG_COPY_BOTH = 'W',
    HF_PG_DATA_ROW = 'D',
    HF_PG_EMPTY_QUERY = 'I',
    HF_PG_ERROR = 'E',
    HF_PG_FUNCTION_RESULT = 'V',
    HF_PG_NEGOTIATE_VERSION = 'v',
    HF_PG_NO_DATA = 'n',
    HF_PG_NOTICE = 'N',
    HF_PG_NOTIFICATION = 'A',
    HF_PG_PARAMETER_DESCRIPTION = 't',
    HF_PG_PARAMETER_STATUS = 'S',
    HF_PG_PARSE_COMPLETE = '1',
    HF_PG_PORTAL_SUSPENDED = 's',
    HF_PG_READY = 'Z',
    HF_PG_ROW_DESCRIPTION = 'T',
};

/** The head of a message: its type, and the bytes of its body (the length field less its own 4). */
struct hf_pg_head {
    uint8_t type;
    uint32_t body_len;
};
/** Read a head. 0; -HF_ETRUNC: fewer than 5 bytes; -HF_EPROTO: the length is less than 4 or more
 * than 2^30. */
HF_MUST int hf_pg_head_read(struct hf_slice s, struct hf_pg_head *ret_head);
/** Likewise of a message whose body has max bytes at most, and that is all there. 0; -HF_ETRUNC:
 * more must come; -HF_EPROTO: also if its body is longer. */
HF_MUST int hf_pg_message_read(struct hf_slice s, uint32_t max, struct hf_pg_head *ret_head);

/* --- start-up packets: no type byte --- */
enum hf_pg_startup_kind {
    HF_PG_START = 1, /* StartupMessage */
    HF_PG_START_TLS, /* SSLRequest */
    HF_PG_START_GSS, /* GSSENCRequest */
    HF_PG_START_CANCEL,
};
struct hf_pg_startup {
    enum hf_pg_startup_kind kind;
    uint32_t version;       /* START: as asked */
    struct hf_slice params; /* START: name NUL value NUL ... without the last NUL, checked, for
                             * hf_pg_param_next() */
    uint32_t pid;           /* CANCEL */
    struct hf_slice key;    /* CANCEL: 4 to HF_PG_CANCEL_KEY_MAX bytes */
};
/**
 * Read a start-up packet from the beginning of s. Returns its length in bytes; 0: more bytes are
 * needed; -HF_EPROTO: a length below 8 or above HF_PG_STARTUP_MAX; -HF_EMALF: a parameter without
 * its value or terminator, bytes left over; -HF_EVERSION: a major version other than 3. A direct
 * TLS ClientHello (first byte 0x16) is the caller's to see.
 */
HF_MUST int hf_pg_startup_read(struct hf_slice s, struct hf_pg_startup *ret_startup);
/** Walk parameters: false at the end. *s begins as startup.params. */
bool hf_pg_param_next(struct hf_slice *s, struct hf_slice *ret_name, struct hf_slice *ret_value);

/* --- bodies --- */
/** A NUL-terminated string: without its NUL; empty and r->err set if there is none. */
struct hf_slice hf_pg_rd_cstr(struct hf_rd *r);

struct hf_pg_parse {
    struct hf_slice name, sql;
    struct hf_slice types; /* 4 bytes each, big-endian */
};
HF_MUST int hf_pg_parse_read(struct hf_slice body, struct hf_pg_parse *ret_parse);
/** The names at the beginning of Bind: portal and statement. */
HF_MUST int hf_pg_bind_read(struct hf_slice body, struct hf_slice *ret_portal,
                            struct hf_slice *ret_statement);
/** Describe and Close: 'S' or 'P', and the name. */
HF_MUST int hf_pg_target_read(struct hf_slice body, uint8_t *ret_kind, struct hf_slice *ret_name);
HF_MUST int hf_pg_execute_read(struct hf_slice body, struct hf_slice *ret_portal,
                               uint32_t *ret_rows_max);

/** A field of ErrorResponse or NoticeResponse ('S', 'V', 'C', 'M', 'D', 'P', ...); p == NULL: not
 * there (an answer without SQLSTATE is a fact of life: CVE-2026-6666). */
struct hf_slice hf_pg_error_field(struct hf_slice body, uint8_t field);

/** One column of a RowDescription. */
struct hf_pg_column {
    struct hf_slice name;
    uint32_t table;  /* OID, 0: none */
    uint16_t number; /* attribute of the table, 0: none */
    uint32_t type;   /* OID */
    uint16_t size;
    uint32_t modifier;
    uint16_t format; /* 0 text, 1 binary */
};
/** Begin to walk a RowDescription: number of columns, r stands at the first. */
HF_MUST int hf_pg_columns_begin(struct hf_slice body, struct hf_rd *ret_r, uint16_t *ret_n);
HF_MUST int hf_pg_column_next(struct hf_rd *r, struct hf_pg_column *ret_column);
/** Begin to walk a DataRow; then n times hf_pg_value_next(): p == NULL is NULL. */
HF_MUST int hf_pg_values_begin(struct hf_slice body, struct hf_rd *ret_r, uint16_t *ret_n);
HF_MUST int hf_pg_value_next(struct hf_rd *r, struct hf_slice *ret_value);
/** ParameterStatus. */
HF_MUST int hf_pg_status_read(struct hf_slice body, struct hf_slice *ret_name,
                              struct hf_slice *ret_value);
/** BackendKeyData. */
HF_MUST int hf_pg_key_read(struct hf_slice body, uint32_t *ret_pid, struct hf_slice *ret_key);

/* --- builders: each appends one whole message --- */
/** Begin a message of this type (0: a start-up packet, without one); returns the mark for _end. */
size_t hf_pg_put_begin(struct hf_buf *b, uint8_t type);
/** Patch the length. */
void hf_pg_put_end(struct hf_buf *b, size_t mark);
void hf_pg_put_u8(struct hf_buf *b, uint8_t v);
void hf_pg_put_u16(struct hf_buf *b, uint16_t v);
void hf_pg_put_u32(struct hf_buf *b, uint32_t v);
/** A string and its NUL; bytes after a NUL in s are left out. */
void hf_pg_put_cstr(struct hf_buf *b, struct hf_slice s);

/** A message with these bytes as its body. */
void hf_pg_put_message(struct hf_buf *b, uint8_t type, struct hf_slice body);
void hf_pg_put_query(struct hf_buf *b, struct hf_slice sql);
void hf_pg_put_ready(struct hf_buf *b, uint8_t status);
void hf_pg_put_command_complete(struct hf_buf *b, const char *tag);
void hf_pg_put_parameter_status(struct hf_buf *b, struct hf_slice name, struct hf_slice value);
void hf_pg_put_key(struct hf_buf *b, uint32_t pid, struct hf_slice key);
void hf_pg_put_cancel(struct hf_buf *b, uint32_t pid, struct hf_slice key);
void hf_pg_put_ssl_request(struct hf_buf *b);
/** All text columns (type 25) with these names. */
void hf_pg_put_text_columns(struct hf_buf *b, const char *const *names, size_t n);
/** A DataRow of text values; p == NULL is NULL. */
void hf_pg_put_text_row(struct hf_buf *b, const struct hf_slice *values, size_t n);

struct hf_pg_error {
    const char *severity; /* "ERROR", "FATAL", "NOTICE", ... */
    const char *sqlstate;
    const char *message;
    const char *detail, *hint; /* NULL: none */
};
/** ErrorResponse, or NoticeResponse when type is HF_PG_NOTICE. */
void hf_pg_put_error(struct hf_buf *b, uint8_t type, const struct hf_pg_error *e);
