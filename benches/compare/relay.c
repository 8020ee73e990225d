// The limit: the least that a proxy could do. One epoll loop, each client's connection paired with one to the server,
// bytes copied unread.
//
//   relay PORT SERVER_PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct end {
    int socket;  // -1 once the pair is closed
    struct end *peer;
    struct end *next;  // among the closed
};

static char buffer[65536];
// Events of the same round may still point to these, hence they are freed after it.
static struct end *closed;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(const char *port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct end *watched(int socket, int epoll) {
    int one = 1;
    struct end *end = calloc(1, sizeof *end);
    if (!end) die("relay: calloc");
    end->socket = socket;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = end};
    epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
    return end;
}

static void accept_all(int listener, int epoll, const struct sockaddr_in *server) {
    int client;
    while ((client = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        int onward = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(onward, (const void *)server, sizeof *server)) {
            close(client);
            close(onward);
            continue;
        }
        struct end *one = watched(client, epoll), *other = watched(onward, epoll);
        one->peer = other;
        other->peer = one;
    }
}

static void close_end(struct end *end) {
    close(end->socket);
    end->socket = -1;
    end->next = closed;
    closed = end;
}

static void copy(struct end *end) {
    if (end->socket < 0) return;
    ssize_t got = recv(end->socket, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close_end(end->peer);
        close_end(end);
        return;
    }
    for (ssize_t sent = 0; sent < got;) {
        ssize_t written = send(end->peer->socket, buffer + sent, (size_t)(got - sent), MSG_NOSIGNAL);
        if (written >= 0) {
            sent += written;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = end->peer->socket, .events = POLLOUT};
            poll(&room, 1, -1);
        } else {
            return;  // the next read says that it is gone
        }
    }
}

int main(int count, char **arguments) {
    if (count != 3) {
        fputs("usage: relay PORT SERVER_PORT\n", stderr);
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), one = 1;
    struct sockaddr_in address = loopback(arguments[1]), server = loopback(arguments[2]);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address)) die("relay: bind");
    if (listen(listener, 4096)) die("relay: listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                copy(events[i].data.ptr);
            } else {
                accept_all(listener, epoll, &server);
            }
        }
        while (closed) {
            struct end *end = closed;
            closed = end->next;
            free(end);
        }
    }
}
