/*
 * wsload: a load generator for WebSocket publish/subscribe servers.
 *
 * It opens N WebSocket connections, sends each one its opening messages
 * (a subscribe command, say), then publishes M messages with HTTP POST on one
 * keep-alive connection, and counts and times what arrives. It speaks no
 * protocol of its own, so that the same run can drive different servers:
 * paths, opening messages and the published body are templates.
 *
 *   %c  the connection's channel number (0 .. channels-1)
 *   %n  the connection's (or the message's) own number
 *   %t  CLOCK_MONOTONIC in nanoseconds, at the publish
 *   %p  padding of --pad letters
 *
 * A delivery is a WebSocket message that bears  T<digits>T ; put T%tT into the
 * published body. Latency = arrival of the whole frame - that time.
 *
 * Build:  cc -O2 -o wsload wsload.c                              (Linux only; no libraries)
 *         cc -O2 -DWITH_TLS -o wsload wsload.c -lssl -lcrypto    (adds --tls; Debian's libssl-dev)
 * Use:    ./wsload --help
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
static SSL_CTX *tls;
#endif

enum state { IDLE, CONNECTING, TLS_HANDSHAKE, HANDSHAKE, OPEN, DEAD };

struct conn {
  int fd, number, channel;
  enum state state;
  void *ssl;
  unsigned char *buf;
  size_t len, cap;
  unsigned replies;
};

static const char *host = "127.0.0.1", *path = "/", *pub_path = "/", *origin = NULL;
static const char *pub_body =
    "{\"type\":\"notification\",\"key\":\"T%tT\",\"subscribers\":[\"CH-%c\"],\"pad\":\"%p\"}";
static const char *pub_headers = "";
static const char *open_messages[8] = {"{\"command\":\"subscribe\",\"data\":[\"CH-%c\"]}"};
static int n_open = 0, n_open_replies = 0;
static int port = 22280, pub_port = 22281, n_conns = 1000, n_channels = 1, n_messages = 100;
static int in_flight_max = 64, pad = 64, hold = 0, n_sources = 1, window = 1, batch = 1;
static int sub_replies = 0;
static double rate = 0, drain_s = 10, connect_s = 120, stable_wait = 0.5;
static char server_pids[256] = "";
static bool quiet_latency = false;

static struct conn *conns;
static int ep;
static long opened = 0, ready = 0, failed = 0, closed_early = 0;
static long deliveries = 0, expected = 0;
static uint64_t *lat; static long lat_n = 0, lat_cap = 0;

static uint64_t now_ns(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void die(const char *what) { perror(what); exit(2); }

static size_t expand(char *out, size_t cap, const char *tmpl, int channel, long number, uint64_t t) {
  size_t o = 0;
  for (const char *p = tmpl; *p && o + 64 < cap; p++) {
    if (*p == '%' && p[1]) {
      p++;
      if (*p == 'c') o += sprintf(out + o, "%d", channel);
      else if (*p == 'n') o += sprintf(out + o, "%ld", number);
      else if (*p == 't') o += sprintf(out + o, "%llu", (unsigned long long)t);
      else if (*p == 'p') { for (int i = 0; i < pad && o + 64 < cap; i++) out[o++] = 'x'; }
      else if (*p == 'r') out[o++] = '\r';
      else if (*p == 'l') out[o++] = '\n';
      else { out[o++] = '%'; out[o++] = *p; }
    } else if (*p == '\\' && p[1] == 'n') { out[o++] = '\n'; p++; }
    else out[o++] = *p;
  }
  out[o] = 0;
  return o;
}

static ssize_t io_send(struct conn *c, const void *p, size_t n) {
#ifdef WITH_TLS
  if (c->ssl) return SSL_write(c->ssl, p, n);
#endif
  return send(c->fd, p, n, MSG_NOSIGNAL);
}
/* > 0: bytes; 0: closed; -1: nothing for now; -2: error */
static ssize_t io_recv(struct conn *c, void *p, size_t n) {
#ifdef WITH_TLS
  if (c->ssl) {
    int r = SSL_read(c->ssl, p, n);
    if (r > 0) return r;
    int e = SSL_get_error(c->ssl, r);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? -1 : e == SSL_ERROR_ZERO_RETURN ? 0 : -2;
  }
#endif
  ssize_t r = recv(c->fd, p, n, 0);
  if (r >= 0) return r;
  return errno == EAGAIN || errno == EINTR ? -1 : -2;
}

static void kill_conn(struct conn *c, bool early) {
  if (c->state == DEAD) return;
#ifdef WITH_TLS
  if (c->ssl) SSL_free(c->ssl);
  c->ssl = NULL;
#endif
  close(c->fd); free(c->buf); c->buf = NULL; c->len = c->cap = 0;
  c->state = DEAD;
  if (early) closed_early++;
}

static void ws_send(struct conn *c, unsigned char opcode, const char *data, size_t n) {
  unsigned char frame[70000]; size_t h = 2;
  frame[0] = 0x80 | opcode;
  if (n < 126) frame[1] = 0x80 | n;
  else { frame[1] = 0x80 | 126; frame[2] = n >> 8; frame[3] = n; h = 4; }
  memset(frame + h, 0x5a, 4); h += 4;
  for (size_t i = 0; i < n; i++) frame[h + i] = data[i] ^ 0x5a;
  if (io_send(c, frame, h + n) != (ssize_t)(h + n)) kill_conn(c, true);
}

static void start_conn(struct conn *c) {
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) die("socket");
  int one = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (n_sources > 1) {
    struct sockaddr_in s = {.sin_family = AF_INET};
    char src[32]; snprintf(src, sizeof src, "127.0.1.%d", 1 + c->number % n_sources);
    inet_pton(AF_INET, src, &s.sin_addr);
    setsockopt(c->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    if (bind(c->fd, (void *)&s, sizeof s)) die("bind");
  }
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &a.sin_addr);
  int r = connect(c->fd, (void *)&a, sizeof a);
  if (r && errno != EINPROGRESS) { failed++; c->state = DEAD; close(c->fd); return; }
  c->state = CONNECTING;
  struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static void record(uint64_t ns) {
  deliveries++;
  if (quiet_latency) return;
  if (lat_n == lat_cap) { lat_cap = lat_cap ? lat_cap * 2 : 1 << 20; lat = realloc(lat, lat_cap * 8); if (!lat) die("realloc"); }
  lat[lat_n++] = ns;
}

static void became_ready(struct conn *c) { if (c->state == OPEN) ready++; }

static void on_message(struct conn *c, int opcode, unsigned char *p, size_t n, uint64_t t) {
  if (opcode == 9) { ws_send(c, 10, (char *)p, n); return; }
  if (opcode == 8) { kill_conn(c, true); return; }
  unsigned char *q = p, *end = p + n; bool counted = false;
  while ((q = memchr(q, 'T', end - q))) {
    unsigned char *d = q + 1; uint64_t v = 0;
    while (d < end && isdigit(*d)) v = v * 10 + (*d++ - '0');
    if (d - q > 8 && d < end && *d == 'T') { record(t - v); counted = true; q = d + 1; }
    else q = d;
    if (q >= end) break;
  }
  if (!counted && n_open_replies && c->replies < (unsigned)n_open_replies) {
    c->replies++;
    if (sub_replies && c->replies == 1 && n_open > 1)
      for (int i = 1; i < n_open; i++) {
        char out[4096]; size_t m = expand(out, sizeof out, open_messages[i], c->channel, c->number, 0);
        ws_send(c, 1, out, m);
      }
    if (c->replies == (unsigned)n_open_replies) became_ready(c);
  }
}

static void on_read(struct conn *c) {
  for (;;) {
    if (c->cap - c->len < 4096) {
      c->cap = c->cap ? c->cap * 2 : 4096;
      c->buf = realloc(c->buf, c->cap); if (!c->buf) die("realloc");
    }
    ssize_t r = io_recv(c, c->buf + c->len, c->cap - c->len);
    if (r == -1) break;
    if (r <= 0) { if (c->state == HANDSHAKE) failed++; kill_conn(c, true); return; }
    c->len += r;
    if (!c->ssl && c->len < c->cap) break;
  }
  uint64_t t = now_ns();
  size_t used = 0;
  if (c->state == HANDSHAKE) {
    unsigned char *e = memmem(c->buf, c->len, "\r\n\r\n", 4);
    if (!e) return;
    if (c->len < 12 || memcmp(c->buf + 9, "101", 3)) {
      fprintf(stderr, "handshake refused: %.60s\n", c->buf); failed++; kill_conn(c, false); return;
    }
    used = e + 4 - c->buf;
    c->state = OPEN; opened++;
    char out[4096];
    for (int i = 0; i < (sub_replies ? 1 : n_open); i++) {
      size_t n = expand(out, sizeof out, open_messages[i], c->channel, c->number, 0);
      ws_send(c, 1, out, n);
      if (c->state == DEAD) return;
    }
    if (!n_open_replies) became_ready(c);
  }
  while (c->state == OPEN) {
    size_t left = c->len - used; unsigned char *p = c->buf + used;
    if (left < 2) break;
    uint64_t n = p[1] & 127; size_t h = 2;
    if (n == 126) { if (left < 4) break; n = p[2] << 8 | p[3]; h = 4; }
    else if (n == 127) { if (left < 10) break; n = 0; for (int i = 2; i < 10; i++) n = n << 8 | p[i]; h = 10; }
    if (left < h + n) break;
    on_message(c, p[0] & 15, p + h, n, t);
    used += h + n;
  }
  if (c->state == DEAD) return;
  memmove(c->buf, c->buf + used, c->len - used); c->len -= used;
  if (!c->len && c->cap > 4096) { free(c->buf); c->buf = NULL; c->cap = 0; }
}

static void watch(struct conn *c, unsigned events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void ask_upgrade(struct conn *c) {
  char req[4096], p[1024]; expand(p, sizeof p, path, c->channel, c->number, 0);
  int n = snprintf(req, sizeof req,
      "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
      p, host, port, origin ? "Origin: " : "", origin ? origin : "", origin ? "\r\n" : "");
  if (io_send(c, req, n) != n) { failed++; kill_conn(c, false); return; }
  c->state = HANDSHAKE;
  watch(c, EPOLLIN);
  if (c->ssl) on_read(c);
}

#ifdef WITH_TLS
static void shake_hands(struct conn *c) {
  int r = SSL_do_handshake(c->ssl);
  if (r == 1) { ask_upgrade(c); return; }
  int e = SSL_get_error(c->ssl, r);
  if (e == SSL_ERROR_WANT_READ) watch(c, EPOLLIN);
  else if (e == SSL_ERROR_WANT_WRITE) watch(c, EPOLLOUT);
  else { failed++; kill_conn(c, false); }
}
#endif

static void on_connected(struct conn *c) {
  int err = 0; socklen_t l = sizeof err;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
  if (err) { failed++; kill_conn(c, false); return; }
#ifdef WITH_TLS
  if (tls) {
    c->ssl = SSL_new(tls); SSL_set_fd(c->ssl, c->fd); SSL_set_connect_state(c->ssl);
    c->state = TLS_HANDSHAKE; shake_hands(c); return;
  }
#endif
  ask_upgrade(c);
}

static void pump(int timeout_ms) {
  struct epoll_event ev[512];
  int n = epoll_wait(ep, ev, 512, timeout_ms);
  for (int i = 0; i < n; i++) {
    struct conn *c = ev[i].data.ptr;
    if (!c) continue;
    if (c->state == CONNECTING) on_connected(c);
#ifdef WITH_TLS
    else if (c->state == TLS_HANDSHAKE) shake_hands(c);
#endif
    else if (c->state == HANDSHAKE || c->state == OPEN) on_read(c);
  }
}

/* user + system CPU time of the server's processes, in seconds */
static double server_user; /* the user part of the last server_cpu() */
static double server_cpu(long *rss_kb) {
  double total = 0; server_user = 0; long rss = 0; char list[256]; strcpy(list, server_pids);
  for (char *s = strtok(list, ","); s; s = strtok(NULL, ",")) {
    char f[64], b[2048]; snprintf(f, sizeof f, "/proc/%s/stat", s);
    FILE *h = fopen(f, "r"); if (!h) continue;
    size_t r = fread(b, 1, sizeof b - 1, h); b[r] = 0; fclose(h);
    char *q = strrchr(b, ')'); unsigned long u, k;
    if (q && sscanf(q + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &k) == 2)
      { total += (double)(u + k) / sysconf(_SC_CLK_TCK); server_user += (double)u / sysconf(_SC_CLK_TCK); }
    snprintf(f, sizeof f, "/proc/%s/smaps_rollup", s);
    if ((h = fopen(f, "r"))) {
      while (fgets(b, sizeof b, h)) { long v; if (sscanf(b, "Pss: %ld", &v) == 1) rss += v; }
      fclose(h);
    }
  }
  if (rss_kb) *rss_kb = rss;
  return total;
}

static int pub_fd = -1; static char pub_buf[1 << 16]; static size_t pub_len = 0;
static void pub_open(void) {
  if (pub_fd >= 0) close(pub_fd);
  pub_fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(pub_port)};
  inet_pton(AF_INET, host, &a.sin_addr);
  if (connect(pub_fd, (void *)&a, sizeof a)) die("connect to the publish port");
  int one = 1; setsockopt(pub_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(pub_fd, F_SETFL, O_NONBLOCK); pub_len = 0;
}
static long pub_ok = 0, pub_bad = 0; static int pub_pending = 0;
static void pub_post(long number) {
  static char body[1 << 17], req[1 << 18], p[1024];
  int ch = number % n_channels; uint64_t t = now_ns();
  size_t n = 0;
  if (batch > 1) { /* a JSON list of that many messages */
    body[n++] = '[';
    for (int i = 0; i < batch; i++) {
      if (i) body[n++] = ',';
      n += expand(body + n, sizeof body - n, pub_body, ch, number, t);
    }
    body[n++] = ']'; body[n] = 0;
  } else n = expand(body, sizeof body, pub_body, ch, number, t);
  expand(p, sizeof p, pub_path, ch, number, t);
  char hd[2048]; expand(hd, sizeof hd, pub_headers, ch, number, t);
  int m = snprintf(req, sizeof req,
      "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
      p, host, pub_port, hd, n, body);
  for (int o = 0; o < m;) {
    ssize_t w = send(pub_fd, req + o, m - o, MSG_NOSIGNAL);
    if (w < 0 && errno == EAGAIN) { usleep(100); continue; }
    if (w <= 0) { pub_open(); o = 0; continue; }
    o += w;
  }
  pub_pending++;
}
/* takes whole HTTP responses off the publish connection */
static void pub_reap(void) {
  for (;;) {
    ssize_t r = recv(pub_fd, pub_buf + pub_len, sizeof pub_buf - 1 - pub_len, 0);
    if (r > 0) pub_len += r;
    else if (r == 0) { pub_bad += pub_pending; pub_pending = 0; pub_open(); return; }
    pub_buf[pub_len] = 0;
    char *e = strstr(pub_buf, "\r\n\r\n");
    if (!e) return;
    size_t head = e + 4 - pub_buf, body = 0; bool chunked = false;
    for (char *l = pub_buf; l < e; l = strstr(l, "\r\n") + 2) {
      if (!strncasecmp(l, "content-length:", 15)) body = atol(l + 15);
      if (!strncasecmp(l, "transfer-encoding:", 18)) chunked = true;
    }
    if (chunked) { char *z = strstr(e + 4, "0\r\n\r\n"); if (!z) return; body = z + 5 - (e + 4); }
    if (pub_len < head + body) return;
    if (pub_buf[9] == '2') pub_ok++; else { if (!pub_bad) fprintf(stderr, "publish refused: %.200s\n", pub_buf); pub_bad++; }
    pub_pending--;
    memmove(pub_buf, pub_buf + head + body, pub_len - head - body); pub_len -= head + body;
    if (!pub_len) return;
  }
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(uint64_t *)a, y = *(uint64_t *)b; return x < y ? -1 : x > y;
}
static double pct_of(uint64_t *sorted, long n, double p) { return n ? sorted[(long)((n - 1) * p)] / 1e6 : 0; }
static double pct(double p) { return pct_of(lat, lat_n, p); }

static volatile sig_atomic_t told_to_end = 0;
static void on_signal(int number) { (void)number; told_to_end = 1; }

int main(int argc, char **argv) {
  static struct option o[] = {
      {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"conns", 1, 0, 'n'},
      {"channels", 1, 0, 'c'}, {"messages", 1, 0, 'm'}, {"pub-port", 1, 0, 'q'}, {"pub-path", 1, 0, 'Q'},
      {"pub-body", 1, 0, 'b'}, {"pub-headers", 1, 0, 'H'}, {"open", 1, 0, 'o'}, {"open-replies", 1, 0, 'r'},
      {"wait-first-reply", 0, 0, 'w'}, {"pad", 1, 0, 'd'}, {"window", 1, 0, 'W'}, {"rate", 1, 0, 'R'},
      {"pids", 1, 0, 'i'}, {"in-flight", 1, 0, 'f'}, {"sources", 1, 0, 's'}, {"hold", 1, 0, 'O'},
      {"drain", 1, 0, 'D'}, {"origin", 1, 0, 'g'}, {"no-latency", 0, 0, 'L'}, {"connect-timeout", 1, 0, 'T'},
      {"settle", 1, 0, 'S'}, {"batch", 1, 0, 'B'}, {"tls", 0, 0, 'x'}, {"help", 0, 0, '?'}, {0}};
  int k;
  while ((k = getopt_long(argc, argv, "", o, NULL)) != -1) switch (k) {
    case 'h': host = optarg; break; case 'p': port = atoi(optarg); break;
    case 'P': path = optarg; break; case 'n': n_conns = atoi(optarg); break;
    case 'c': n_channels = atoi(optarg); break; case 'm': n_messages = atoi(optarg); break;
    case 'q': pub_port = atoi(optarg); break; case 'Q': pub_path = optarg; break;
    case 'b': pub_body = optarg; break; case 'H': pub_headers = optarg; break;
    case 'o': if (n_open < 8) open_messages[n_open++] = optarg; break;
    case 'r': n_open_replies = atoi(optarg); break; case 'w': sub_replies = 1; break;
    case 'd': pad = atoi(optarg); break; case 'W': window = atoi(optarg); break;
    case 'R': rate = atof(optarg); break; case 'i': snprintf(server_pids, sizeof server_pids, "%s", optarg); break;
    case 'f': in_flight_max = atoi(optarg); break; case 's': n_sources = atoi(optarg); break;
    case 'O': hold = atoi(optarg); break; case 'D': drain_s = atof(optarg); break;
    case 'g': origin = optarg; break; case 'L': quiet_latency = true; break;
#ifdef WITH_TLS
    case 'x':
      tls = SSL_CTX_new(TLS_client_method()); SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
      SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS); break;
#endif
    case 'B': batch = atoi(optarg); break;
    case 'T': connect_s = atof(optarg); break; case 'S': stable_wait = atof(optarg); break;
    default:
      puts("wsload --port P --pub-port Q [--conns N] [--channels C] [--messages M] [--window W | --rate R]\n"
           "       [--pad BYTES] [--pids PID,PID] [--path T] [--open T]... [--open-replies K [--wait-first-reply]]\n"
           "       [--pub-path T] [--pub-body T] [--pub-headers T] [--in-flight F] [--sources S] [--hold SECONDS]\n"
           "       [--settle S] [--drain S] [--connect-timeout S] [--origin O] [--no-latency] [--host A] [--tls]\n"
           "--batch B:  post a JSON list of B messages each time\n"
           "--window W: publish so that at most W messages are not yet fully delivered (closed loop; 1 by default)\n"
           "--rate R:   publish R messages a second whatever arrives (open loop)\n"
           "--pids:     the server's processes: adds CPU per delivery and memory per connection\n"
           "--sources:  spread the connections over 127.0.1.1 .. 127.0.1.S (for more than 28,000)\n"
           "Prints one JSON object.");
      return k == '?' ? 0 : 2;
  }
  if (!n_open) n_open = 1;
  if (!strcmp(open_messages[0], "none")) n_open = 0;
  struct rlimit rl; getrlimit(RLIMIT_NOFILE, &rl); rl.rlim_cur = rl.rlim_max; setrlimit(RLIMIT_NOFILE, &rl);
  ep = epoll_create1(0);
  conns = calloc(n_conns, sizeof *conns); if (!conns) die("calloc");
  if (hold) signal(SIGTERM, on_signal); /* ends the time of --hold, and the run in good order */
  long rss0 = 0, rss1 = 0; double cpu0 = server_cpu(&rss0);
  uint64_t t0 = now_ns(); int started = 0;
  while (ready + failed < n_conns && now_ns() - t0 < connect_s * 1e9) {
    while (started < n_conns && started - opened - failed < in_flight_max) {
      conns[started].number = started; conns[started].channel = started % n_channels;
      start_conn(&conns[started++]);
    }
    pump(50);
  }
  double connect_t = (now_ns() - t0) / 1e9; double cpu1 = server_cpu(NULL);
  /* let the subscriptions land */
  for (uint64_t s = now_ns(); now_ns() - s < stable_wait * 1e9;) pump(20);
  server_cpu(&rss1);
  if (hold) for (uint64_t s = now_ns(); now_ns() - s < hold * 1e9 && !told_to_end;) pump(100);
  double cpu2 = server_cpu(NULL), user2 = server_user;
  long *per_channel = calloc(n_channels, sizeof(long));
  for (int i = 0; i < n_conns; i++) if (conns[i].state == OPEN) per_channel[conns[i].channel]++;
  double pub_t = 0; long sent = 0;
  if (n_messages) {
    pub_open();
    uint64_t p0 = now_ns(), last = p0; long done_at = 0;
    while (now_ns() - last < drain_s * 1e9) {
      pub_reap();
      uint64_t t = now_ns(); bool go;
      if (rate > 0) go = sent < n_messages && (t - p0) / 1e9 * rate >= sent;
      else go = sent < n_messages && pub_pending < window && expected - deliveries < (long)window * batch * (per_channel[sent % n_channels] ? per_channel[sent % n_channels] : 1);
      if (go) { expected += batch * per_channel[sent % n_channels]; pub_post(sent++); last = now_ns(); }
      long before = deliveries; pump(go ? 0 : (rate > 0 ? 1 : (expected > deliveries ? 5 : 0)));
      if (deliveries != before) { last = now_ns(); done_at = deliveries; }
      if (sent == n_messages && deliveries >= expected && !pub_pending) break;
    }
    (void)done_at;
    pub_t = (last - p0) / 1e9;
  }
  long rss2 = 0; double cpu3 = server_cpu(&rss2);
  /* they are in the order of arrival: what came first and what came last show whether it grew */
  long third = lat_n / 3; double first = 0, last_third = 0;
  if (third) {
    qsort(lat, third, 8, by_value); first = pct_of(lat, third, .5);
    qsort(lat + lat_n - third, third, 8, by_value); last_third = pct_of(lat + lat_n - third, third, .5);
  }
  if (lat_n) qsort(lat, lat_n, 8, by_value);
  printf("{\"conns\": %d, \"opened\": %ld, \"failed\": %ld, \"closed_early\": %ld, \"connect_s\": %.3f, \"conns_per_s\": %.0f, "
         "\"server_cpu_us_per_conn\": %.1f, \"server_kb_per_conn\": %.2f, \"server_pss_mb\": %.1f, "
         "\"messages\": %ld, \"publish_ok\": %ld, \"publish_bad\": %ld, \"expected\": %ld, \"deliveries\": %ld, \"lost\": %ld, "
         "\"seconds\": %.3f, \"deliveries_per_s\": %.0f, \"publishes_per_s\": %.0f, \"server_cpu_us_per_delivery\": %.3f, "
         "\"server_user_us_per_delivery\": %.3f, \"server_cpu_us_per_publish\": %.1f, \"latency_ms\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f, "
         "\"p50_first_third\": %.3f, \"p50_last_third\": %.3f}, \"server_pss_mb_after\": %.1f}\n",
         n_conns, opened, failed, closed_early, connect_t, opened / connect_t,
         opened ? (cpu1 - cpu0) * 1e6 / opened : 0, opened ? (double)(rss1 - rss0) / opened : 0, rss1 / 1024.0,
         sent, pub_ok, pub_bad, expected, deliveries, expected - deliveries,
         pub_t, pub_t ? deliveries / pub_t : 0, pub_t ? sent / pub_t : 0,
         deliveries ? (cpu3 - cpu2) * 1e6 / deliveries : 0, deliveries ? (server_user - user2) * 1e6 / deliveries : 0, sent ? (cpu3 - cpu2) * 1e6 / sent : 0,
         pct(.5), pct(.9), pct(.99), pct(.999), pct(1), first, last_third, rss2 / 1024.0);
  return failed || expected != deliveries || pub_bad ? 1 : 0;
}
