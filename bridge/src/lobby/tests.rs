//! Tests of the lobby: which connection gives way, when, and for what.

use super::guests::{GRACE, LONG_HEADS};
use super::queue::FEW;
use super::*;

/// What the budget has, bytes.
const BUDGET: usize = 100;

fn lobby() -> Arc<Lobby> {
    Lobby::new(Budget::new(BUDGET))
}

#[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
fn client(number: u32) -> Option<ClientId> {
    Some(ClientId::User(number))
}

/// When each connection has had its [`GRACE`].
fn make_room(lobby: &Lobby) -> bool {
    lobby.make_room(Instant::now() + GRACE)
}

fn has_any(lobby: &Lobby) -> bool {
    lobby.prospect(Instant::now()) == Prospect::Now
}

/// Before the connections have had it.
fn make_room_now(lobby: &Lobby) -> bool {
    lobby.make_room(Instant::now())
}

fn is_by(lobby: &Lobby, time: Instant) -> bool {
    matches!(lobby.prospect(Instant::now()), Prospect::Later(next) if next <= time)
}

fn gives_way(guest: &Guest) -> bool {
    guest.stay.state.load(Ordering::Acquire) == GIVES_WAY
}

#[test]
fn l5_the_oldest_gives_way_and_no_session_does() {
    let lobby = lobby();
    assert!(!make_room(&lobby));
    let guests: Vec<_> = (0..5).map(|number| lobby.enter(client(number))).collect();
    guests[0].admit();
    assert!(make_room(&lobby));
    assert_eq!(
        guests.iter().map(gives_way).collect::<Vec<_>>(),
        [false, true, false, false, false]
    );
    let mut guests = guests.into_iter();
    let (_session, _sent_away, left) = (guests.next(), guests.next(), guests.next());
    drop(left);
    assert!(make_room(&lobby) && make_room(&lobby));
    assert!(guests.all(|guest| gives_way(&guest)));
    assert!(!make_room(&lobby) && !has_any(&lobby));
}

#[test]
fn l5_who_has_asked_in_time_is_admitted_and_another_gives_way() {
    let lobby = lobby();
    let [asks, waits] = [1, 2].map(|number| lobby.enter(client(number)));
    assert!(make_room(&lobby));
    assert_eq!(lobby.leaving(), 1);
    asks.admit();
    assert_eq!(lobby.leaving(), 0);
    assert!(make_room(&lobby) && gives_way(&waits) && !gives_way(&asks));
    drop(asks);
    assert_eq!(lobby.leaving(), 1);
    assert!(waits.has_given_way());
    drop(waits);
    assert_eq!(lobby.leaving(), 1, "its connection is still to end");
    lobby.has_gone();
    let panics = lobby.enter(client(3));
    assert!(make_room(&lobby));
    drop(panics);
    assert_eq!(lobby.leaving(), 0);
}

#[test]
fn l5_who_has_many_connections_is_in_his_own_way() {
    let lobby = lobby();
    let good: Vec<_> = (0..FEW).map(|_| lobby.enter(client(1))).collect();
    let other = lobby.enter(client(2));
    let many: Vec<_> = (0..2 * FEW).map(|_| lobby.enter(client(3))).collect();
    // A client with many connections has no [`GRACE`].
    for _ in 0..FEW {
        assert!(has_any(&lobby) && make_room_now(&lobby));
    }
    assert!(!has_any(&lobby) && !make_room_now(&lobby));
    assert!(is_by(&lobby, Instant::now() + GRACE));
    assert!(many[..FEW].iter().all(gives_way) && !many[FEW..].iter().any(gives_way));
    assert!(!good.iter().any(gives_way) && !gives_way(&other));
    // No client has many any more.
    assert!(make_room(&lobby));
    assert!(gives_way(&good[0]));
}

#[test]
fn l5_there_is_room_for_few_long_heads_that_are_not_whole() {
    let lobby = lobby();
    let all: Vec<_> =
        (0..LONG_HEADS).map(|n| lobby.enter(client(u32::try_from(n).unwrap()))).collect();
    let many: Vec<_> = (0..=FEW).map(|_| lobby.enter(client(1000))).collect();
    for guest in &all {
        // Called again, as when more of the head comes.
        guest.begins_long_head();
        guest.begins_long_head();
    }
    assert!(!all.iter().any(gives_way));
    all[1].ends_long_head();
    all[2].admit();
    many[..2].iter().for_each(Guest::begins_long_head);
    assert!(!all.iter().chain(&many).any(gives_way));
    many[2].begins_long_head();
    assert!(gives_way(&all[0]));
    assert_eq!(all.iter().chain(&many).filter(|guest| gives_way(guest)).count(), 1);
    // A client with many long heads displaces its own. A connection that has gone displaces none.
    for guest in &many[3..] {
        guest.begins_long_head();
    }
    assert!(gives_way(&many[0]) && !gives_way(&all[all.len() - 1]));
    // A connection that gives way already makes no other do so.
    let before = all.iter().chain(&many).filter(|guest| gives_way(guest)).count();
    for guest in all.iter().chain(&many).filter(|guest| gives_way(guest)) {
        guest.begins_long_head();
    }
    assert_eq!(all.iter().chain(&many).filter(|guest| gives_way(guest)).count(), before);
    drop((all, many));
    let guests = lobby.guests();
    assert!(guests.waiting.is_empty() && guests.keeping.is_empty() && guests.long.is_empty());
}

#[test]
fn l5_a_connection_is_that_clients_of_whom_a_proxy_says_so() {
    let lobby = lobby();
    let others: Vec<_> = (0..FEW).map(|_| lobby.enter(client(1))).collect();
    let guest = lobby.enter(client(2));
    guest.is_of(client(1));
    assert!(make_room(&lobby));
    assert!(gives_way(&others[0]));
    drop((others, guest));
    let guests = lobby.guests();
    assert!(guests.waiting.is_empty() && guests.keeping.is_empty());
}

#[test]
fn l5_whoever_takes_an_answer_goes_after_all_others_and_only_when_he_takes_nothing() {
    let lobby = lobby();
    let [takes, stops, idle, begun] = [1, 1, 2, 1].map(|number| lobby.enter(client(number)));
    takes.is_answered(0);
    stops.is_answered(0);
    idle.is_answered(5);
    idle.waits();
    assert!(make_room(&lobby) && gives_way(&idle));
    assert!(make_room(&lobby) && gives_way(&begun));
    assert!(!make_room(&lobby) && !has_any(&lobby));
    let later = Instant::now() + QUIET;
    assert!(is_by(&lobby, later));
    takes.stay.answer().as_mut().unwrap().since += QUIET / 2;
    assert!(lobby.make_room(later) && gives_way(&stops) && !gives_way(&takes));
    assert!(!lobby.make_room(later));
    assert!(lobby.make_room(later + QUIET) && gives_way(&takes));
    drop((takes, stops, idle, begun));
    assert!(lobby.guests().answered.is_empty() && lobby.leaving() == 0);
}

#[test]
fn l5_a_session_does_not_come_back_with_its_last_answer() {
    let lobby = lobby();
    let [session, other] = [1, 2].map(|number| lobby.enter(client(number)));
    session.is_answered(0);
    session.admit();
    session.is_answered(7);
    session.waits();
    other.is_answered(0);
    drop(other);
    let guests = lobby.guests();
    assert!(guests.answered.is_empty() && guests.waiting.is_empty());
}

#[test]
fn l5_nobody_gives_way_for_memory_where_that_would_not_do() {
    let lobby = lobby();
    let [session, keeps, silent, asks] = [1, 2, 3, 4].map(|number| lobby.enter(client(number)));
    assert!(!session.keeps(BUDGET));
    session.admit();
    assert!(!keeps.keeps(10) && !asks.has_memory() && !silent.has_memory());
    assert!(![&keeps, &silent, &asks].into_iter().any(gives_way));
    drop(session);
    assert!(asks.has_memory());
}

/// A proxy with many clients does not displace its own connections: each counts for itself.
#[test]
fn l5_who_cannot_be_told_apart_waits_like_anybody_else() {
    let lobby = lobby();
    let old = lobby.enter(client(1));
    let behind: Vec<_> = (0..3 * FEW).map(|_| lobby.enter(None)).collect();
    assert!(make_room(&lobby) && gives_way(&old));
    assert!(make_room(&lobby) && gives_way(&behind[0]) && !gives_way(&behind[1]));
}

#[test]
fn l5_who_has_many_answers_under_way_is_in_his_own_way() {
    let lobby = lobby();
    let answered = |number| {
        let guest = lobby.enter(client(number));
        guest.is_answered(0);
        guest
    };
    let good: Vec<_> = (0..FEW).map(|_| answered(1)).collect();
    assert!(!has_any(&lobby) && !make_room(&lobby));
    let many: Vec<_> = (0..FEW + 2).map(|_| answered(2)).collect();
    assert!(has_any(&lobby));
    assert!(make_room_now(&lobby) && make_room_now(&lobby) && !make_room_now(&lobby));
    assert!(many[..2].iter().all(gives_way) && !many[2..].iter().any(gives_way));
    assert!(!good.iter().any(gives_way));
}

#[test]
fn l5_where_memory_runs_out_those_give_way_for_whom_it_is_kept_and_no_more_than_needed() {
    let lobby = lobby();
    let silent = lobby.enter(client(1));
    let [old, young] = [2, 3].map(|number| lobby.enter(client(number)));
    assert!(old.keeps(60) && young.keeps(30));
    let asks = lobby.enter(client(4));
    assert!(asks.has_memory() && asks.keeps(9));
    assert!(asks.keeps(10), "the oldest is to give what he has");
    assert!(gives_way(&old) && !gives_way(&young) && !gives_way(&silent));
    assert!(asks.has_memory(), "it will be there");
    assert!(old.has_given_way());
    drop(old);
    lobby.has_gone();
    assert_eq!((lobby.leaving(), lobby.freeing.load(Ordering::Acquire)), (0, 0));
    assert!(asks.keeps(69) && !gives_way(&young));
    assert!(asks.keeps(70) && gives_way(&young));
    drop(young);
    assert!(!asks.keeps(100), "he is the next himself");
    assert!(!gives_way(&asks) && !gives_way(&silent));
    // The memory of a session is not freed by the lobby.
    asks.admit();
    assert!(!silent.has_memory() && !gives_way(&silent));
    drop(asks);
    assert!(silent.has_memory());
    drop(silent);
    assert!(!lobby.budget.is_tight());
}
