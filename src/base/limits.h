/* Every limit in one place (I9): reaching one is refused and counted, never fatal. */
#pragma once

/* names and values */
#define HF_HOST_NAME_MAX 63     /* bytes of a host's name: one DNS label (RFC 1035 2.3.4) */
#define HF_SERVICE_NAME_MAX 255 /* bytes of a service's path */
#define HF_SERVICE_DEPTH_MAX 16 /* labels of a path */
#define HF_VALUE_LEN_MAX 16384  /* bytes of a service's JSON object */

/* directory */
#define HF_HOSTS_MAX 16384            /* hosts that one host knows */
#define HF_ENTRIES_PER_HOST_MAX 16384 /* services of one host */
#define HF_PART_BYTES_MAX (16u << 20) /* names and values of one host, in all */
#define HF_HISTORY_MAX 4096           /* changes an owner can give as a delta */
#define HF_PULLS_MAX 8                /* pulls under way at once */
#define HF_PULL_QUEUE_MAX 256         /* peers waiting for a pull */
#define HF_HELD_ADVERTS_MAX 16        /* adverts kept during one pull (A8) */
#define HF_PUBLISH_BURST 20000        /* changes that one publisher may make at once ... */
#define HF_PUBLISH_PER_S 2000         /* ... and per second thereafter */
#define HF_PUBLISHERS_MAX 1024        /* local connections that hold entries */
#define HF_HEARTBEATS_PER_S_MAX 500   /* that one host may receive from all others */

/* status and dashboard */
#define HF_PROGRAMS_SHOWN_MAX 256          /* managers, and SIP servers */
#define HF_PROGRAMS_BYTES_MAX (256u << 10) /* of the values of either, but for the last one */
#define HF_OVERVIEW_HOSTS_MAX 256
#define HF_NOTES_MAX 256   /* what happened, kept for those who look later */
#define HF_SAMPLES_MAX 512 /* figures of late, of all programs */

/* groups */
#define HF_GROUP_NAME_MAX 31          /* bytes: one DNS label */
#define HF_GROUP_MEMBERS_MAX 16       /* hosts of a group: masks have 16 bits */
#define HF_GROUP_RESOURCES_MAX 16     /* copies and attached resources of a group */
#define HF_GROUP_COPIES_MAX 8         /* of these, copies */
#define HF_GROUP_RESOURCE_NAME_MAX 31 /* bytes: one DNS label */
#define HF_GROUP_AGENT_MAX 95         /* ocf:PROVIDER:TYPE */
#define HF_GROUP_PROBE_MAX 159        /* parameters of the access probe */
#define HF_GROUP_ADDRESS_MAX 63       /* text of a member's address */
#define HF_GROUP_FENCE_TEXT_MAX 120   /* what an agent's promote hands to the group (X3) */
/* in a fence text, and its epoch: the reign before that was opened, if any was; all of the text
 * before this one has recorded its own. Agents must not begin theirs with it. */
#define HF_GROUP_AFTER "after="
#define HF_GROUP_LOST_MAX 1024 /* names of all members, with spaces between */
#define HF_GROUP_TEXT_MAX 160  /* reasons in messages */
#define HF_GROUP_GHOSTS_MAX 8
#define HF_GSTATE_LEN_MAX 12288       /* an encoded state */
#define HF_GROUPS_MAX 16              /* groups of one host */
#define HF_GROUP_DEFINITION_MAX 65536 /* bytes of a group's definition, as an operator gives it */
#define HF_GROUP_COMMANDS_MAX 16      /* operators' commands under way on one host */

/* pairs of managers */
#define HF_PAIR_SECTIONS_MAX 32       /* kinds of bytes that a session has */
#define HF_PAIR_NAME_MAX 255          /* bytes of an item's name */
#define HF_PAIR_SESSIONS_MAX 65536    /* in a backup's store */
#define HF_PAIR_BATCH_MAX (64u << 20) /* bytes of one batch, all its frames */

/* SIP homes */
#define HF_SIP_SERVERS_MAX 1024 /* servers of a cluster, also those that were */
#define HF_SIP_AOR_MAX 255      /* bytes of an address of record */
/* watchers */
#define HF_SIP_NOTIFY_BODY_MAX 49152 /* bytes of a document: leaves room for the header */
#define HF_SIP_ENDED_MAX 16          /* contacts of an AoR that are shown after their end */
#define HF_SIP_PIDF_ELEMENTS_MAX 256 /* of documents made one; more are left out */

/* wire */
#define HF_ADVERT_LEN_MAX 1400 /* bytes of a datagram, header and tag included */
#define HF_PULL_BODY_MAX (HF_PART_BYTES_MAX + (4u << 20))
#define HF_STATE_BODY_MAX (96u << 20) /* state dump (A5); what is over is pulled */
#define HF_CTL_FRAME_MAX (256u << 10) /* one frame on the control socket */
#define HF_CTL_CLIENTS_MAX 256
#define HF_CTL_WATCHES_MAX 64         /* per control connection */
#define HF_CTL_BACKLOG_MAX (8u << 20) /* bytes a slow reader may leave unread */
#define HF_HTTP_CLIENTS_MAX 512
#define HF_HTTP_HEADERS_MAX 8192
#define HF_SSE_CLIENTS_MAX 128
#define HF_SSE_BACKLOG_MAX (4u << 20)
#define HF_SENDERS_MAX 32768 /* senders whose derived key is remembered */

/* SIP messages and bindings */
#define HF_SIP_MESSAGE_MAX 65535      /* bytes: positions are 16 bits */
#define HF_SIP_FIELDS_MAX 160         /* header lines */
#define HF_SIP_VIAS_MAX 70            /* values: as many hops as Max-Forwards begins with */
#define HF_SIP_CONTACTS_MAX 16        /* bindings of one address of record */
#define HF_SIP_BINDING_TEXT_MAX 2048  /* bytes of a contact, its parameters and its path */
#define HF_SIP_EXPIRED_AT_ONCE_MAX 64 /* bindings that one tick ends */

/* agents */
#define HF_OCF_META_MAX (256u << 10)   /* bytes of an agent's meta-data */
#define HF_OCF_META_ITEMS_MAX 1024     /* actions, and parameters, of one agent */
#define HF_OCF_OUTPUT_MAX (64u << 10)  /* bytes kept of an action's stdout, and of its stderr */
#define HF_OCF_ENV_MAX (256u << 10)    /* bytes of an action's environment */
#define HF_OCF_REASON_MAX 512          /* bytes of an exit reason */
#define HF_FENCE_INPUT_MAX (16u << 10) /* bytes of a fence agent's options */
#define HF_FENCE_OUTPUT_MAX (64u << 10)
#define HF_FENCE_TEXT_MAX 1024 /* bytes of what is told of a failure */
#define HF_FENCE_STEPS_MAX 64  /* actions of devices to fence one host */

/* take-over of connections */
#define HF_TCPMOVE_RECORD_MAX (64u << 20) /* bytes of packets kept until there are sockets */
/* output commit */
#define HF_EGRESS_ADDRESSES_MAX 16  /* service addresses of one guard */
#define HF_EGRESS_INTERFACES_MAX 16 /* its interfaces */
#define HF_EGRESS_SLOTS_MAX 65536   /* its connections */
/* All headers: Ethernet, VLAN tags, IPv4 with options or IPv6 with some, TCP with options.
 * Longer ones can't be saved: such packets are dropped. */
#define HF_EGRESS_HEADER_MAX 172
#define HF_EGRESS_EXTENSIONS_MAX 4 /* IPv6 extension headers; packets with more are dropped */
#define HF_EGRESS_VLANS_MAX 3
