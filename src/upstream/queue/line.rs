//! Who waits for a slot, and in which order they get one. No thread, no lock and no clock: whoever calls says what time
//! it is.
//!
//! Better classes go first. Within a class the oldest goes first, as long as nobody waits for long: that is fair, and
//! bursts are what a queue is for. Under lasting overload it is the wrong order: everybody waits as long as the line is,
//! and is served when nobody is interested any more. So once somebody has waited for an interval, or a good part of
//! those who wait have given up before that for some windows on end, and more join than are served, the newest go first
//! until the line has emptied or no longer grows (adaptive LIFO). Meanwhile those who have waited for longer than
//! a moment are refused: their turn will not come, and the sooner they know the better. The newest are kept however long
//! they have waited, as many as there are slots or are served in an interval: nobody idles for lack of requests, and a few
//! slow ones do not make an overload.
//!
//! A burst that nobody follows is not overload, however long the line: fewer join than leave. Nor is a line that is never
//! empty and moves fast, as when a few clients ask again and again. Both are served in order, to their end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::{Priority, QueueSettings};

/// A waiter's place. In the order of keys, better classes come first, and within a class the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) class: Priority,
    turn: u64,
}

struct Entry<W> {
    since: Instant,
    waiter: W,
}

/// Clients are impatient when for so many that are served one gives up, and at least so many do, in so many windows on
/// end: a page of a few requests that somebody closes is no sign of anything.
const SERVED_FOR_ONE_LEFT: u32 = 4;
const LEAST_LEFT: u32 = 2;
const IMPATIENT_WINDOWS: u32 = 3;

/// After so many windows in which the line did not grow, it is served in order again.
const CALM_WINDOWS: u32 = 2;

/// So many mean gaps between two seats are a pause that says something.
const PAUSE: f64 = 8.0;

/// What the settings come to.
#[derive(Clone, Copy, Debug)]
struct Rules {
    size: usize,
    /// How long somebody may wait before there is lasting overload.
    interval: Duration,
    /// How long one may wait in lasting overload.
    target: Duration,
}

impl Rules {
    /// Whoever may wait for a minute has patient clients, and perhaps slow work: what is long and what is lasting is
    /// measured by `max_wait`.
    fn of(settings: QueueSettings) -> Rules {
        Rules { size: settings.size, interval: settings.max_wait / 4, target: settings.max_wait / 20 }
    }

    /// What is compared to see whether more join than leave; never zero.
    fn window(&self) -> Duration {
        (self.interval / 2).max(Duration::from_millis(1))
    }
}

/// What happened since it began.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    joined: u32,
    seated: u32,
    /// Clients that gave up.
    left: u32,
}

impl Window {
    fn new(began: Instant) -> Window {
        Window { began, joined: 0, seated: 0, left: 0 }
    }
}

/// Why somebody leaves the line unserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The client is gone.
    GaveUp,
    TimeUp,
}

/// See the module.
pub(super) struct Line<W> {
    rules: Rules,
    waiting: BTreeMap<Key, Entry<W>>,
    turn: u64,
    window: Window,
    newest_first: bool,
    /// Windows on end in which clients gave up, and in which the line did not grow.
    impatient: u32,
    calm: u32,
    /// Whether those who have waited for long are refused.
    shedding: bool,
    /// Seats in a second, of late; `None` before any window has passed.
    rate: Option<f64>,
    /// When somebody was last seated, or began to wait for nobody else.
    moved: Instant,
    /// There is nobody who could serve, for a moment: that is no overload.
    suspended: bool,
}

impl<W> Line<W> {
    pub(super) fn new(settings: QueueSettings, now: Instant) -> Line<W> {
        Line {
            rules: Rules::of(settings),
            waiting: BTreeMap::new(),
            turn: 0,
            window: Window::new(now),
            newest_first: false,
            impatient: 0,
            calm: 0,
            shedding: false,
            rate: None,
            moved: now,
            suspended: false,
        }
    }

    /// From now on these settings hold. Nobody who waits already is sent away.
    pub(super) fn set(&mut self, settings: QueueSettings) {
        self.rules = Rules::of(settings);
    }

    /// Whether there is nobody who could serve, and will be soon. Until then all wait in their order, for as long as they
    /// may; what comes of it afterwards is judged from then on.
    pub(super) fn suspend(&mut self, suspended: bool, now: Instant) {
        if self.suspended != suspended {
            self.suspended = suspended;
            self.window = Window::new(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Lines `waiter` up. Returns its place and who had to give way for it.
    ///
    /// # Errors
    /// The waiter, when the line is full and nobody gives way.
    pub(super) fn join(&mut self, class: Priority, waiter: W, now: Instant) -> Result<(Key, Option<W>), W> {
        if self.waiting.is_empty() {
            self.window = Window::new(now);
            self.moved = now;
        }
        self.look(now);
        self.window.joined = self.window.joined.saturating_add(1);
        let mut displaced = None;
        if self.waiting.len() >= self.rules.size {
            let Some(loser) = self.gives_way_to(class) else { return Err(waiter) };
            displaced = self.take_out(loser);
        }
        let key = Key { class, turn: self.turn };
        self.turn = self.turn.saturating_add(1);
        self.waiting.insert(key, Entry { since: now, waiter });
        Ok((key, displaced))
    }

    /// Whether one of `class` could line up: there is room, or somebody gives way.
    pub(super) fn has_room(&self, class: Priority) -> bool {
        self.waiting.len() < self.rules.size || self.gives_way_to(class).is_some()
    }

    /// Who makes room for one more of `class` in a full line: of the lowest class, if that is lower, whoever would be
    /// served last; if it is the same, only in overload, where the newest go first.
    fn gives_way_to(&self, class: Priority) -> Option<Key> {
        let (last, _) = self.waiting.last_key_value()?;
        if last.class < class || (last.class == class && !self.newest_first) {
            return None;
        }
        if !self.newest_first {
            return Some(*last);
        }
        self.of_class(last.class).next().map(|(key, _)| *key)
    }

    /// Whoever has left by themselves. `None` when they were not in line any more.
    pub(super) fn leave(&mut self, key: Key, why: Leaves, now: Instant) -> Option<W> {
        self.look(now);
        let waiter = self.take_out(key)?;
        match why {
            Leaves::GaveUp => self.window.left = self.window.left.saturating_add(1),
            // Nobody's impatience, and in overload what comes of the order.
            Leaves::TimeUp => {}
        }
        Some(waiter)
    }

    /// Seats the first in order for whom `seat` finds something; asks no more than `most`.
    pub(super) fn seat_first<T>(
        &mut self,
        most: usize,
        now: Instant,
        mut seat: impl FnMut(&W) -> Option<T>,
    ) -> Option<(W, T)> {
        self.look(now);
        let mut left = most;
        let mut found = None;
        'classes: for class in [Priority::High, Priority::Normal, Priority::Low] {
            let mut waiting = self.of_class(class);
            loop {
                let next = if self.newest_first { waiting.next_back() } else { waiting.next() };
                let Some((key, entry)) = next else { break };
                let Some(rest) = left.checked_sub(1) else { break 'classes };
                left = rest;
                if let Some(what) = seat(&entry.waiter) {
                    found = Some((*key, what));
                    break 'classes;
                }
            }
        }
        let (key, what) = found?;
        self.window.seated = self.window.seated.saturating_add(1);
        self.moved = now;
        self.take_out(key).map(|waiter| (waiter, what))
    }

    /// In lasting overload, those whose turn will not come: who have waited for too long already, the lowest class
    /// first. As many stay as are served in an interval, and at least `keep`.
    pub(super) fn shed(&mut self, now: Instant, keep: impl FnOnce(&W) -> usize) -> Vec<W> {
        self.look(now);
        let mut shed = Vec::new();
        if !self.shedding || self.suspended {
            return shed;
        }
        let keep = self.any().map_or(0, keep).max(self.served_in_an_interval());
        for class in [Priority::Low, Priority::Normal, Priority::High] {
            while self.waiting.len() > keep {
                let oldest = self.of_class(class).next();
                let too_old = oldest.filter(|(_, entry)| now.duration_since(entry.since) > self.rules.target);
                let Some(key) = too_old.map(|(key, _)| *key) else { break };
                shed.extend(self.take_out(key));
            }
        }
        shed
    }

    /// How long it takes until as many as wait now have got a slot, by how it went of late; `None` when nothing is
    /// known. Where nobody has been served for a while, it goes no faster than one in that time.
    pub(super) fn drains_in(&self, now: Instant) -> Option<Duration> {
        let waiting = u32::try_from(self.waiting.len().saturating_add(1)).unwrap_or(u32::MAX);
        let idle = now.duration_since(self.moved);
        let stalled = idle.saturating_mul(waiting);
        let Some(rate) = self.rate else { return (!self.waiting.is_empty()).then_some(stalled) };
        if rate <= 0.0 {
            return Some(stalled);
        }
        let by_rate = Duration::try_from_secs_f64(f64::from(waiting) / rate).unwrap_or(Duration::MAX);
        // Requests that take equal times end together: a pause of a few of their gaps says nothing.
        Some(if idle.as_secs_f64() * rate > PAUSE { by_rate.max(stalled) } else { by_rate })
    }

    fn served_in_an_interval(&self) -> usize {
        let served = self.rate.unwrap_or_default() * self.rules.interval.as_secs_f64();
        // Far from where it would not fit: no line is that long.
        served.min(1e9) as usize
    }

    /// Any of those who wait.
    pub(super) fn any(&self) -> Option<&W> {
        self.waiting.first_key_value().map(|(_, entry)| &entry.waiter)
    }

    fn longest_wait(&self, now: Instant) -> Duration {
        let oldest = [Priority::High, Priority::Normal, Priority::Low].into_iter().filter_map(|class| {
            let (_, entry) = self.of_class(class).next()?;
            Some(now.duration_since(entry.since))
        });
        oldest.max().unwrap_or_default()
    }

    fn of_class(&self, class: Priority) -> std::collections::btree_map::Range<'_, Key, Entry<W>> {
        self.waiting.range(Key { class, turn: 0 }..=Key { class, turn: u64::MAX })
    }

    fn take_out(&mut self, key: Key) -> Option<W> {
        let entry = self.waiting.remove(&key)?;
        if self.waiting.is_empty() {
            self.newest_first = false;
            self.shedding = false;
            (self.impatient, self.calm) = (0, 0);
        }
        Some(entry.waiter)
    }

    /// Judges the window that has passed.
    fn look(&mut self, now: Instant) {
        let passed = now.duration_since(self.window.began);
        if passed < self.rules.window() || self.suspended {
            return;
        }
        let Window { joined, seated, left, .. } = self.window;
        self.window = Window::new(now);
        let rate = f64::from(seated) / passed.as_secs_f64();
        self.rate = Some(self.rate.map_or(rate, |before| 0.7 * before + 0.3 * rate));
        let grows = !self.waiting.is_empty() && joined > seated;
        let gives_up = grows && left >= LEAST_LEFT && left.saturating_mul(SERVED_FOR_ONE_LEFT) >= seated;
        self.impatient = if gives_up { self.impatient.saturating_add(1) } else { 0 };
        self.calm = if grows { 0 } else { self.calm.saturating_add(1) };
        let is_impatient = self.impatient >= IMPATIENT_WINDOWS;
        let is_lasting = self.newest_first || is_impatient || self.longest_wait(now) >= self.rules.interval;
        self.shedding = grows && is_lasting;
        self.newest_first = self.shedding || (self.newest_first && self.calm < CALM_WINDOWS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: QueueSettings = QueueSettings { size: 1000, max_wait: Duration::from_secs(2) };
    const NORMAL: Priority = Priority::Normal;

    /// A line and its clock.
    struct Desk {
        line: Line<u32>,
        now: Instant,
    }

    impl Desk {
        fn new(settings: QueueSettings) -> Desk {
            let now = Instant::now();
            Desk { line: Line::new(settings, now), now }
        }

        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
        }

        fn join(&mut self, class: Priority, who: u32) -> Result<Option<u32>, u32> {
            self.line.join(class, who, self.now).map(|(_, displaced)| displaced)
        }

        fn seat(&mut self) -> Option<u32> {
            self.line.seat_first(1, self.now, |_| Some(())).map(|(who, ())| who)
        }

        fn shed(&mut self, keep: usize) -> Vec<u32> {
            self.line.shed(self.now, |_| keep)
        }

        /// `each` join every 10 ms, one is seated every 20 ms. Returns the names of those who were seated and of those
        /// who were refused.
        fn load(&mut self, milliseconds: u64, each: u32, next: &mut u32) -> (Vec<u32>, Vec<u32>) {
            let (mut seated, mut shed) = (Vec::new(), Vec::new());
            for step in 0..milliseconds / 10 {
                self.pass(10);
                for _ in 0..each {
                    self.join(NORMAL, *next).unwrap();
                    *next += 1;
                }
                if step % 2 == 0 {
                    seated.extend(self.seat());
                }
                shed.extend(self.shed(2));
            }
            (seated, shed)
        }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..3 {
            desk.join(NORMAL, who).unwrap();
            desk.pass(10);
        }
        assert_eq!([desk.seat(), desk.seat(), desk.seat(), desk.seat()], [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn whoever_waits_for_a_worker_to_come_is_no_overload() {
        let mut desk = Desk::new(SETTINGS);
        desk.line.suspend(true, desk.now);
        for who in 0..80 {
            desk.join(NORMAL, who).unwrap();
            desk.pass(20);
            assert!(desk.shed(1).is_empty());
        }
        desk.line.suspend(false, desk.now);
        let order: Vec<u32> = std::iter::from_fn(|| desk.seat()).collect();
        assert_eq!(order, (0..80).collect::<Vec<u32>>());
    }

    #[test]
    fn better_classes_go_first() {
        let mut desk = Desk::new(SETTINGS);
        for (who, class) in
            [Priority::Low, NORMAL, Priority::High, Priority::Low, NORMAL, Priority::High].into_iter().enumerate()
        {
            desk.join(class, u32::try_from(who).unwrap()).unwrap();
        }
        let order: Vec<u32> = std::iter::from_fn(|| desk.seat()).collect();
        assert_eq!(order, [2, 5, 1, 4, 0, 3]);
    }

    #[test]
    fn whoever_leaves_is_not_seated() {
        let mut desk = Desk::new(SETTINGS);
        let (key, _) = desk.line.join(NORMAL, 1, desk.now).unwrap();
        desk.join(NORMAL, 2).unwrap();
        assert_eq!(desk.line.leave(key, Leaves::GaveUp, desk.now), Some(1));
        assert_eq!(desk.line.leave(key, Leaves::GaveUp, desk.now), None);
        assert_eq!(desk.seat(), Some(2));
    }

    #[test]
    fn who_cannot_use_a_slot_is_passed_over_while_enough_are_asked() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..10 {
            desk.join(NORMAL, who).unwrap();
        }
        let third = |who: &u32| (*who == 2).then_some(());
        assert_eq!(desk.line.seat_first(2, desk.now, third), None);
        assert_eq!(desk.line.seat_first(3, desk.now, third), Some((2, ())));
        assert_eq!(desk.line.len(), 9);
    }

    #[test]
    fn in_lasting_overload_the_newest_go_first_and_the_old_are_refused() {
        let mut desk = Desk::new(SETTINGS);
        let mut next = 0;
        // Twice the load: in order at first, and nobody is refused.
        let (seated, shed) = desk.load(900, 1, &mut next);
        assert!(seated.is_sorted() && shed.is_empty(), "{seated:?} {shed:?}");
        desk.load(600, 1, &mut next);
        // From now on, whoever is seated has just come, and whoever has not been is told so soon.
        let first = next;
        let (seated, shed) = desk.load(1000, 1, &mut next);
        assert_eq!(seated.len(), 50);
        assert!(seated.iter().all(|who| *who >= first), "{seated:?}");
        assert!(shed.len() >= 40, "{shed:?}");
        assert!(desk.line.len() <= 27, "as many as are served in half a second: {}", desk.line.len());
        // As soon as it has emptied, it is a line like any other.
        while desk.seat().is_some() {}
        desk.join(NORMAL, 1).unwrap();
        desk.join(NORMAL, 2).unwrap();
        assert_eq!(desk.seat(), Some(1));
    }

    #[test]
    fn as_many_as_there_are_slots_stay_however_long_they_have_waited() {
        let mut desk = Desk::new(SETTINGS);
        let mut next = 0;
        desk.load(1500, 1, &mut next);
        for _ in 0..20 {
            desk.pass(50);
            desk.join(NORMAL, next).unwrap();
            next += 1;
            desk.shed(4);
            assert!(desk.line.len() >= 4);
        }
        let newest: Vec<u32> = std::iter::from_fn(|| desk.seat()).take(4).collect();
        assert_eq!(newest, [next - 1, next - 2, next - 3, next - 4]);
    }

    #[test]
    fn a_burst_is_served_in_order_and_to_its_end() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..80 {
            desk.join(NORMAL, who).unwrap();
        }
        let (mut seated, mut shed) = (Vec::new(), Vec::new());
        for _ in 0..80 {
            desk.pass(20);
            seated.extend(desk.seat());
            shed.extend(desk.shed(2));
        }
        assert_eq!(seated, (0..80).collect::<Vec<u32>>());
        assert!(shed.is_empty());
    }

    #[test]
    fn a_line_that_is_never_empty_and_moves_fast_stays_in_order() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..20 {
            desk.join(NORMAL, who).unwrap();
        }
        // Each asks again as soon as it is served.
        for turn in 0..1000 {
            desk.pass(10);
            let who = desk.seat();
            assert_eq!((who, desk.shed(2).len()), (Some(turn % 20), 0));
            desk.join(NORMAL, turn % 20).unwrap();
        }
    }

    #[test]
    fn when_overload_ends_the_rest_is_served_and_nobody_is_refused_any_more() {
        let mut desk = Desk::new(QueueSettings { size: 10_000, ..SETTINGS });
        let mut next = 0;
        desk.load(1500, 1, &mut next);
        let waiting = desk.line.len();
        assert!(waiting > 20);
        // A window later it is known that nobody joins.
        for _ in 0..2 {
            desk.pass(250);
            desk.seat();
        }
        let mut shed = desk.shed(0);
        for _ in 0..waiting {
            desk.pass(20);
            desk.seat();
            shed.extend(desk.shed(0));
        }
        assert_eq!((desk.line.len(), shed.len()), (0, 0));
    }

    #[test]
    fn a_full_line_takes_nobody_but_their_betters() {
        let mut desk = Desk::new(QueueSettings { size: 2, ..SETTINGS });
        desk.join(NORMAL, 1).unwrap();
        desk.join(Priority::Low, 2).unwrap();
        assert_eq!(desk.join(Priority::Low, 3), Err(3));
        assert_eq!(desk.join(NORMAL, 4), Ok(Some(2)));
        assert_eq!(desk.join(NORMAL, 5), Err(5));
        assert_eq!(desk.join(Priority::High, 6), Ok(Some(4)), "the last to come is the first to go");
        assert_eq!([desk.seat(), desk.seat(), desk.seat()], [Some(6), Some(1), None]);
        let mut none = Desk::new(QueueSettings { size: 0, ..SETTINGS });
        assert_eq!(none.join(Priority::High, 1), Err(1));
    }

    #[test]
    fn in_overload_the_oldest_makes_room_in_a_full_line() {
        let mut desk = Desk::new(QueueSettings { size: 40, ..SETTINGS });
        for who in 0..200 {
            desk.pass(10);
            let _ = desk.join(NORMAL, who);
            if who % 4 == 0 {
                desk.seat();
            }
        }
        assert!(desk.join(NORMAL, 200).is_ok());
        assert_eq!(desk.seat(), Some(200));
    }

    #[test]
    fn how_long_it_takes_is_told_by_how_it_went() {
        let mut desk = Desk::new(SETTINGS);
        assert_eq!(desk.line.drains_in(desk.now), None);
        for who in 0..1000 {
            desk.join(NORMAL, who).unwrap();
        }
        for _ in 0..100 {
            desk.pass(10);
            desk.seat();
        }
        let drains_in = desk.line.drains_in(desk.now).unwrap().as_secs_f64();
        assert!((8.0..10.5).contains(&drains_in), "{drains_in}");
        // The workers are stuck from now on.
        desk.pass(2000);
        assert!(desk.line.drains_in(desk.now) > Some(Duration::from_secs(1000)));
    }

    #[test]
    fn where_nobody_was_ever_served_it_takes_long() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..10 {
            desk.join(NORMAL, who).unwrap();
            desk.pass(500);
        }
        assert!(desk.line.drains_in(desk.now) > Some(Duration::from_secs(40)));
    }

    /// Twice the load, and everybody gives up before anybody has waited for an interval.
    #[test]
    fn clients_that_give_up_early_are_a_sign_of_overload_too() {
        let mut desk = Desk::new(SETTINGS);
        let mut waiting: std::collections::VecDeque<(Instant, u32, Key)> = std::collections::VecDeque::new();
        let mut waits = Vec::new();
        for who in 0..400 {
            desk.pass(10);
            let (key, _) = desk.line.join(NORMAL, who, desk.now).unwrap();
            waiting.push_back((desk.now, who, key));
            while let Some((since, _, key)) = waiting.front().copied()
                && desk.now.duration_since(since) >= Duration::from_millis(400)
            {
                desk.line.leave(key, Leaves::GaveUp, desk.now);
                waiting.pop_front();
            }
            if who % 2 == 0
                && let Some(seated) = desk.seat()
            {
                let (since, ..) = waiting.iter().find(|(_, who, _)| *who == seated).unwrap();
                waits.push(desk.now.duration_since(*since));
            }
            let shed = desk.shed(2);
            waiting.retain(|(_, who, _)| !shed.contains(who));
        }
        let late = &waits[waits.len() / 2..];
        assert!(late.iter().all(|wait| *wait < Duration::from_millis(50)), "{late:?}");
    }

    /// 4 slots, 200 ms each: how many of 28 that come at once are served in order, while two others give up.
    #[test]
    fn a_burst_of_which_two_give_up_is_served_all_the_same() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..28 {
            desk.join(NORMAL, who).unwrap();
        }
        let leave = [28, 29].map(|who| desk.line.join(NORMAL, who, desk.now).unwrap().0);
        let (mut seated, mut shed) = (Vec::new(), Vec::new());
        for step in 1..=80 {
            desk.pass(20);
            if step == 5 {
                for key in leave {
                    desk.line.leave(key, Leaves::GaveUp, desk.now);
                }
            }
            if step % 10 == 0 {
                seated.extend(std::iter::from_fn(|| desk.seat()).take(4));
            }
            shed.extend(desk.shed(4));
        }
        assert_eq!((seated, shed), ((0..28).collect(), vec![]));
    }

    /// Clients that ask again and again, and a page that one of them closes: nobody starves afterwards.
    #[test]
    fn who_gives_up_once_turns_no_order_round() {
        let mut desk = Desk::new(SETTINGS);
        for who in 0..8 {
            desk.join(NORMAL, who).unwrap();
        }
        for round in 0..100 {
            desk.pass(200);
            let served: Vec<u32> = std::iter::from_fn(|| desk.seat()).take(4).collect();
            for who in &served {
                desk.join(NORMAL, *who).unwrap();
            }
            if round == 8 {
                let page = [100, 101, 102].map(|who| desk.line.join(NORMAL, who, desk.now).unwrap().0);
                desk.pass(20);
                for key in page {
                    desk.line.leave(key, Leaves::GaveUp, desk.now);
                }
            }
            assert!(desk.shed(4).is_empty());
            assert!(desk.line.longest_wait(desk.now) < Duration::from_millis(500), "round {round}");
        }
    }
}
