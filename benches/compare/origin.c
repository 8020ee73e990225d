// The server behind every proxy: HTTP/1.1, one epoll loop, the same small answer to every request.
//
//   origin PORT [BYTES]
//
// Each answer is one write, whatever was asked for; bodies of requests with a Content-Length are read and dropped. An
// answer that does not fit into the socket's buffer is waited for, so this is for small ones.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int socket;
    size_t held;  // bytes of `buffer` that were read and not looked at
    size_t body;  // bytes of the request's body that are still to come
    char buffer[16384];
};

static char *answer;
static size_t answer_length;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void make_answer(size_t body) {
    answer = malloc(body + 256);
    if (!answer) die("origin: malloc");
    answer_length = (size_t)sprintf(answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: origin\r\nContent-Length: %zu\r\n\r\n", body);
    memset(answer + answer_length, 'x', body);
    answer_length += body;
}

static int listen_at(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address)) die("origin: bind");
    if (listen(listener, 4096)) die("origin: listen");
    return listener;
}

static void accept_all(int listener, int epoll) {
    int socket, one = 1;
    while ((socket = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection) die("origin: calloc");
        connection->socket = socket;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
    }
}

static void send_answer(int socket) {
    size_t sent = 0;
    while (sent < answer_length) {
        ssize_t written = write(socket, answer + sent, answer_length - sent);
        if (written >= 0) {
            sent += (size_t)written;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = socket, .events = POLLOUT};
            poll(&room, 1, -1);
        } else {
            return;  // the next read says that it is gone
        }
    }
}

static void drop(struct connection *connection, size_t bytes) {
    memmove(connection->buffer, connection->buffer + bytes, connection->held - bytes);
    connection->held -= bytes;
}

// Answers every request that is there in whole.
static void answer_all(struct connection *connection) {
    for (;;) {
        if (connection->body) {
            size_t here = connection->body < connection->held ? connection->body : connection->held;
            drop(connection, here);
            connection->body -= here;
            if (connection->body) return;
            send_answer(connection->socket);
        }
        connection->buffer[connection->held] = 0;
        char *end = memmem(connection->buffer, connection->held, "\r\n\r\n", 4);
        if (!end) return;
        *end = 0;
        char *length = strcasestr(connection->buffer, "\r\ncontent-length:");
        connection->body = length ? strtoul(length + 17, 0, 10) : 0;
        drop(connection, (size_t)(end + 4 - connection->buffer));
        if (!connection->body) send_answer(connection->socket);
    }
}

static void serve(struct connection *connection) {
    size_t room = sizeof connection->buffer - connection->held - 1;
    ssize_t got = read(connection->socket, connection->buffer + connection->held, room);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close(connection->socket);
        free(connection);
        return;
    }
    connection->held += (size_t)got;
    answer_all(connection);
}

int main(int count, char **arguments) {
    if (count < 2) {
        fputs("usage: origin PORT [BYTES]\n", stderr);
        return 2;
    }
    make_answer(count > 2 ? strtoul(arguments[2], 0, 10) : 1024);
    int listener = listen_at(atoi(arguments[1])), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                serve(events[i].data.ptr);
            } else {
                accept_all(listener, epoll);
            }
        }
    }
}
