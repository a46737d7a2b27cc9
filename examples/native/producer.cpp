// producer.cpp: the same thread in C++17, with batches: one wake-up for up to 64 ticks.
//
//     c++ -std=c++17 -O2 -shared -fPIC -pthread -I"$(python -c 'import nexus_channels as n; print(n.get_include())')"
//         producer.cpp -o producer.so

#include "nexus_channels.h"

#include <chrono>
#include <memory>
#include <new>
#include <thread>

#include "tick.h"

namespace
{

struct Detach {
    void operator()(nexus_sender *tx) const noexcept { nexus_detach_sender(tx); }
};
using Sender = std::unique_ptr<nexus_sender, Detach>; // detached whatever happens

int run(const void *address, std::uint32_t source, std::uint64_t count)
{
    nexus_sender *raw = nullptr;
    if (int result = nexus_attach_sender(address, &raw); result != NEXUS_OK)
        return result;
    Sender tx{raw};
    for (std::uint64_t i = 0; i < count; i++) {
        void *place;
        if (int result = nexus_claim(tx.get(), sizeof(tick), NEXUS_FOREVER, &place); result != NEXUS_OK)
            return result;
        auto since = std::chrono::steady_clock::now().time_since_epoch();
        new (place) tick{source, 0, i, std::chrono::nanoseconds(since).count(), 100 + static_cast<double>(i % 64) / 64};
        int result = i % 64 == 63 ? nexus_commit(tx.get(), sizeof(tick)) : nexus_commit_quiet(tx.get(), sizeof(tick));
        if (result != NEXUS_OK)
            return result;
    }
    return nexus_flush(tx.get()); // the last ones, too
}

} // namespace

struct feed {
    int result = NEXUS_OK;
    std::thread thread;
};

extern "C" feed *feed_start(const void *address, std::uint32_t source, std::uint64_t count)
{
    auto f = std::make_unique<feed>();
    f->thread = std::thread([f = f.get(), address, source, count] { f->result = run(address, source, count); });
    return f.release();
}

extern "C" int feed_finish(feed *f)
{
    std::unique_ptr<feed> owned{f};
    owned->thread.join();
    return owned->result;
}
