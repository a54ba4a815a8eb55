//! Attacks: from inside functions by all the means that an attacker has there, and on the port by raw sockets. Each has an id and a row in
//! `docs/attacks.md`; each passes when the attacker didn't get what it wanted and another owner's function answers right afterwards.
//!
//! What an attack tries is tried where it succeeds as well, so that a slip in it can't pass as a refusal.

mod bombs;
mod credentials;
mod files_left;
mod frames;
mod lures;
mod natives;
mod neighbours;
mod port;
mod probes;
mod siege;
mod sockets;
mod starting;
mod tenants;
mod texts;
mod uploads;

/// Every attack's id, and the test that runs it, as `docs/attacks.md` names them.
pub fn registry() -> Vec<(&'static str, String)> {
    let groups: [(&str, Vec<&'static str>); 13] = [
        ("bombs::what_a_process_does_is_its_own", bombs::ids(bombs::BOMBS)),
        ("bombs::what_a_function_hoards_is_its_own", bombs::ids(bombs::FLOODS)),
        ("credentials::a_caller_is_who_its_key_says", credentials::ids()),
        ("files_left::what_is_left_in_output_leads_nowhere", files_left::ids()),
        ("frames::a_sandbox_that_lies_harms_itself_alone", frames::ids()),
        ("natives::other_languages_have_no_other_ways", natives::ids()),
        ("neighbours::sandboxes_are_hidden_from_each_other", neighbours::ids()),
        ("port::the_front_door_holds", port::ids()),
        ("sockets::bytes_that_no_client_sends_are_refused", sockets::ids()),
        ("starting::what_runs_while_loading_is_bounded_too", starting::ids()),
        ("tenants::owners_keep_what_is_theirs", tenants::ids()),
        ("texts::values_stay_values", texts::ids()),
        ("uploads::packages_stay_packages", uploads::ids()),
    ];
    let probes = probes::GROUPS
        .iter()
        .map(|group| (group.test, group.ids()))
        .map(|(test, ids)| (format!("probes::{test}"), ids));
    let others = groups.into_iter().map(|(test, ids)| (test.to_owned(), ids));
    let all = probes.chain(others);
    all.flat_map(|(test, ids)| ids.into_iter().map(move |id| (id, format!("isolation::attacks::{test}")))).collect()
}
