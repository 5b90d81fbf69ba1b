/* Both ends of many short TCP connections, each end one thread with epoll.

   ends serve ADDRESS PORT            echoes the bytes of each connection; prints "ready", runs until it is killed
   ends call ADDRESS PORT CALLERS SECONDS
                                      CALLERS callers, each of which connects, sends 16 bytes, reads them back, closes
                                      and begins anew, for SECONDS; prints one JSON object

   The object: done and failed connections, callers that were still waiting at the end, the seconds that it took, the
   callers' own CPU seconds, and the microseconds of connect() by percentile. A failed caller rests for a millisecond, so that a refusal by return does
   not make it spin. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 16, MOST_CALLERS = 1024, MOST_TIMES = 1 << 22, EVENTS = 256 };
enum state { IDLE, CONNECTING, WAITING };

static const double REST_S = 1e-3;
static struct sockaddr_in peer;
static struct { int fd; enum state state; double began; } callers[MOST_CALLERS];
static float *times_us;
static long connected, done, failed;
static int poller;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd, unsigned what, long key, int how) {
    struct epoll_event event = {.events = what, .data.u64 = (unsigned long)key};
    if (epoll_ctl(poller, how, fd, &event)) die("epoll_ctl");
}

static void address(const char *host, const char *port) {
    peer.sin_family = AF_INET;
    peer.sin_port = htons(atoi(port));
    if (inet_pton(AF_INET, host, &peer.sin_addr) != 1) die(host);
}

static void serve(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&peer, sizeof peer) || listen(listener, 4096)) die("listen");
    watch(listener, EPOLLIN, listener, EPOLL_CTL_ADD);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int at = 0; at < count; at++) {
            int fd = (int)events[at].data.u64;
            if (fd == listener) {
                for (int one; (one = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;)
                    watch(one, EPOLLIN, one, EPOLL_CTL_ADD);
                continue;
            }
            char bytes[64];
            ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got > 0) got = send(fd, bytes, got, MSG_NOSIGNAL);
            else if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) close(fd);
        }
    }
}

static void end_call(int at, int good) {
    if (callers[at].fd >= 0) close(callers[at].fd);
    callers[at].fd = -1;
    callers[at].state = IDLE;
    good ? done++ : failed++;
}

static void begin_call(int at) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    callers[at].fd = fd;
    if (fd < 0) die("socket");
    callers[at].began = now();
    callers[at].state = CONNECTING;
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) && errno != EINPROGRESS) {
        end_call(at, 0);
        return;
    }
    watch(fd, EPOLLOUT, at, EPOLL_CTL_ADD);
}

static void go_on(int at) {
    char bytes[MESSAGE_BYTES] = "sixteen bytes..";
    if (callers[at].state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(callers[at].fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || send(callers[at].fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes) {
            end_call(at, 0);
            return;
        }
        times_us[connected++ % MOST_TIMES] = (float)((now() - callers[at].began) * 1e6);
        callers[at].state = WAITING;
        watch(callers[at].fd, EPOLLIN, at, EPOLL_CTL_MOD);
    } else {
        ssize_t got = recv(callers[at].fd, bytes, sizeof bytes, 0);
        if (got < 0 && errno == EAGAIN) return;
        end_call(at, got == MESSAGE_BYTES);
        if (got == MESSAGE_BYTES) begin_call(at);
    }
}

static int by_time(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void call(int count, double seconds) {
    double began = now(), end = began + seconds, rested = began;
    for (int at = 0; at < count; at++) begin_call(at);
    while (now() < end) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, 1);
        for (int at = 0; at < ready; at++) go_on((int)events[at].data.u64);
        if (failed && now() - rested > REST_S) {
            rested = now();
            for (int at = 0; at < count; at++)
                if (callers[at].state == IDLE) begin_call(at);
        }
    }
    int waiting = 0;
    for (int at = 0; at < count; at++) waiting += callers[at].state != IDLE;
    double took = now() - began;
    long kept = connected < MOST_TIMES ? connected : MOST_TIMES;
    qsort(times_us, kept, sizeof *times_us, by_time);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    printf("{\"done\": %ld, \"failed\": %ld, \"waiting\": %d, \"seconds\": %.6f, ", done, failed, waiting, took);
    printf("\"cpu_s\": %.6f, ", cpu);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"longest_us\": %.1f}\n", kept ? times_us[kept / 2] : 0,
           kept ? times_us[kept * 99 / 100] : 0, kept ? times_us[kept - 1] : 0);
}

int main(int count, char **words) {
    if (count < 4) return 2;
    poller = epoll_create1(0);
    address(words[2], words[3]);
    if (!strcmp(words[1], "serve")) serve();
    if (count != 6 || atoi(words[4]) < 1 || atoi(words[4]) > MOST_CALLERS) return 2;
    times_us = calloc(MOST_TIMES, sizeof *times_us);
    if (!times_us) die("calloc");
    call(atoi(words[4]), atof(words[5]));
    return 0;
}
