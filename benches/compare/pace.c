// A load of a fixed rate, and how long its requests took from when they were due.
//
//   pace -p PORT -r RATE -t SECONDS [-w SECONDS] [-c CONNECTIONS] [-u PATH] [-f FILE] [-o FILE]
//
//   -w   the first seconds do not count (default 0)      -c   kept connections (default 64)
//   -u   what is asked for (default /)                   -f   a file of bearer tokens, one a line, used in turn
//   -o   writes a line for each request that counts: when it was due (CLOCK_MONOTONIC) and how long it took, both in
//        microseconds
//
// Request i is due at start + i / RATE, whatever became of those before it. When it is due it takes a free connection;
// if there is none it waits for one. Its time is counted from when it was due, not from when it could be sent: a
// server that stalls makes every request late that was due meanwhile, and all of them count. That is how the omission
// of just the bad moments ("coordinated omission") is avoided, which a generator has that waits for an answer before it
// looks at the clock again. When this program itself is late, that counts too; `late_us` tells the worst of it.
//
// A connection that the server closes while nothing is asked of it is opened again and counted as `reopened`; a request
// whose connection ends before its answer is `lost`; an answer other than 200 is `failed`. These have no time.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, MOST_CONNECTIONS = 4096, PATIENCE_SECONDS = 3 };
// Answers that have not come.
enum { OPEN = UINT32_MAX, LOST = UINT32_MAX - 1, FAILED = UINT32_MAX - 2 };

struct connection {
    int socket;
    int busy;
    uint64_t request;  // which one, while busy
    size_t held;
    long body;  // bytes of the answer's body that are still to come; -1 while its head is
    int good;
    char buffer[BUFFER];
};

static struct {
    int port, connections;
    double rate, seconds, warm_up;
    const char *path, *tokens, *output;
} asked = {.connections = 64, .path = "/"};

static struct connection *connections;
// Those without a request, in a ring: all are used in turn.
static struct connection **idle;
static int idle_first, idle_count, epoll;
static char **requests;
static size_t request_kinds;
static uint32_t *times;  // microseconds by request
static uint64_t total, sent, done, reopened, start, latest;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void usage(const char *why) {
    fprintf(stderr, "pace: %s\nusage: pace -p PORT -r RATE -t SECONDS [-w SECONDS] [-c CONNECTIONS] [-u PATH] "
                    "[-f FILE] [-o FILE]\n", why);
    exit(2);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t due(uint64_t request) { return start + (uint64_t)((double)request * 1e9 / asked.rate); }

static void read_arguments(int count, char **arguments) {
    int option;
    while ((option = getopt(count, arguments, "p:r:t:w:c:u:f:o:")) != -1) {
        switch (option) {
            case 'p': asked.port = atoi(optarg); break;
            case 'r': asked.rate = atof(optarg); break;
            case 't': asked.seconds = atof(optarg); break;
            case 'w': asked.warm_up = atof(optarg); break;
            case 'c': asked.connections = atoi(optarg); break;
            case 'u': asked.path = optarg; break;
            case 'f': asked.tokens = optarg; break;
            case 'o': asked.output = optarg; break;
            default: usage("unknown option");
        }
    }
    if (asked.port <= 0 || asked.rate <= 0 || asked.seconds <= 0) usage("-p, -r and -t are needed");
    if (asked.connections < 1 || asked.connections > MOST_CONNECTIONS) usage("-c is between 1 and 4096");
}

static void add_request(const char *field, const char *value) {
    requests = realloc(requests, (request_kinds + 1) * sizeof *requests);
    if (!requests || asprintf(&requests[request_kinds++], "GET %s HTTP/1.1\r\nHost: localhost\r\n%s%s%s\r\n", asked.path,
                              field, value, *value ? "\r\n" : "") < 0) die("pace: requests");
}

static void make_requests(void) {
    if (!asked.tokens) return add_request("", "");
    FILE *file = fopen(asked.tokens, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (!file) die(asked.tokens);
    while ((length = getline(&line, &room, file)) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line) add_request("Authorization: Bearer ", line);
    }
    fclose(file);
    free(line);
    if (!request_kinds) usage("the file of -f holds no token");
}

static void put_idle(struct connection *connection) {
    idle[(idle_first + idle_count++) % asked.connections] = connection;
}

static struct connection *take_idle(void) {
    struct connection *connection = idle[idle_first];
    idle_first = (idle_first + 1) % asked.connections;
    idle_count--;
    return connection;
}

static void forget_idle(const struct connection *gone) {
    for (int left = idle_count; left > 0; left--) {
        struct connection *connection = take_idle();
        if (connection != gone) put_idle(connection);
    }
}

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(asked.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->socket < 0 || connect(connection->socket, (void *)&address, sizeof address)) die("pace: connect");
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->socket, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->socket, &event);
    connection->busy = 0;
    connection->held = 0;
    put_idle(connection);
}

static void lose(struct connection *connection) {
    close(connection->socket);
    if (connection->busy) {
        times[connection->request] = LOST;
        done++;
    } else {
        forget_idle(connection);
        reopened++;
    }
    open_connection(connection);
}

// Sends what is due, as far as there are connections.
static void send_due(void) {
    uint64_t time = now();
    while (sent < total && idle_count && due(sent) <= time) {
        struct connection *connection = take_idle();
        const char *request = requests[sent % request_kinds];
        size_t length = strlen(request);
        if (time - due(sent) > latest && idle_count) latest = time - due(sent);
        connection->busy = 1;
        connection->body = -1;
        connection->request = sent++;
        // A request fits into an empty socket. What does not is seen as a lost one.
        if (send(connection->socket, request, length, MSG_NOSIGNAL) != (ssize_t)length) lose(connection);
        time = now();
    }
}

// Reads the answer's head once it is there in whole. 0: not yet.
static int read_head(struct connection *connection) {
    connection->buffer[connection->held] = 0;
    char *end = memmem(connection->buffer, connection->held, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *length = strcasestr(connection->buffer, "\r\ncontent-length:");
    if (!length) {
        fprintf(stderr, "pace: an answer without Content-Length:\n%s\n", connection->buffer);
        exit(1);
    }
    size_t head = (size_t)(end + 4 - connection->buffer);
    connection->good = !strncmp(connection->buffer + 9, "200", 3);
    connection->body = strtol(length + 17, 0, 10) - (long)(connection->held - head);
    connection->held = 0;
    return 1;
}

static void receive(struct connection *connection) {
    ssize_t got = read(connection->socket, connection->buffer + connection->held, BUFFER - connection->held - 1);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || !connection->busy) return lose(connection);
    if (connection->body >= 0) {
        connection->body -= got;
    } else {
        connection->held += (size_t)got;
        if (!read_head(connection)) return;
    }
    if (connection->body > 0) return;
    uint64_t took = (now() - due(connection->request)) / 1000;
    times[connection->request] = !connection->good ? FAILED : took < FAILED ? (uint32_t)took : FAILED - 1;
    done++;
    connection->busy = 0;
    connection->held = 0;
    put_idle(connection);
}

static void run(void) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    start = now() + 1000000;
    uint64_t end = due(total) + PATIENCE_SECONDS * 1000000000ull;
    while (done < total && now() < end) {
        uint64_t next = sent < total && idle_count ? due(sent) : end, fired;
        struct itimerspec at = {.it_value = {.tv_sec = (time_t)(next / 1000000000), .tv_nsec = (long)(next % 1000000000)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        int ready = epoll_wait(epoll, events, 256, PATIENCE_SECONDS * 1000);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                receive(events[i].data.ptr);
            } else if (read(timer, &fired, sizeof fired) < 0 && errno != EAGAIN) {
                die("pace: timer");
            }
        }
        send_due();
    }
}

static int by_size(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static void write_times(uint64_t first) {
    FILE *file = fopen(asked.output, "w");
    if (!file) die(asked.output);
    for (uint64_t i = first; i < total; i++) {
        if (times[i] < FAILED) fprintf(file, "%llu %u\n", (unsigned long long)(due(i) / 1000), times[i]);
    }
    if (fclose(file)) die(asked.output);
}

static void report(void) {
    uint64_t first = (uint64_t)(asked.warm_up * asked.rate), failed = 0, lost = 0, answered = 0;
    if (asked.output) write_times(first);
    for (uint64_t i = first; i < total; i++) {
        uint32_t time = times[i];
        failed += time == FAILED;
        lost += time == LOST || time == OPEN;
        if (time < FAILED) times[answered++] = time;
    }
    qsort(times, answered, sizeof *times, by_size);
    double parts[] = {0.5, 0.99, 0.999};
    const char *names[] = {"p50_us", "p99_us", "p999_us"};
    printf("{\"answered\": %llu, \"failed\": %llu, \"lost\": %llu, \"reopened\": %llu, \"late_us\": %llu",
           (unsigned long long)answered, (unsigned long long)failed, (unsigned long long)lost,
           (unsigned long long)reopened, (unsigned long long)(latest / 1000));
    for (int i = 0; i < 3 && answered; i++) {
        printf(", \"%s\": %u", names[i], times[(uint64_t)(parts[i] * (double)(answered - 1))]);
    }
    if (answered) printf(", \"max_us\": %u", times[answered - 1]);
    puts("}");
}

int main(int count, char **arguments) {
    read_arguments(count, arguments);
    make_requests();
    prctl(PR_SET_TIMERSLACK, 1);
    total = (uint64_t)((asked.warm_up + asked.seconds) * asked.rate);
    connections = calloc((size_t)asked.connections, sizeof *connections);
    idle = calloc((size_t)asked.connections, sizeof *idle);
    times = malloc((total + 1) * sizeof *times);
    if (!connections || !idle || !times) die("pace: memory");
    for (uint64_t i = 0; i < total; i++) times[i] = OPEN;
    epoll = epoll_create1(0);
    for (int i = 0; i < asked.connections; i++) open_connection(&connections[i]);
    run();
    report();
}
