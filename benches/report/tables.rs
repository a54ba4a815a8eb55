//! A run as text: what machine, goal by goal, case by case, and what could not be measured.

use super::goals::Judged;
use super::rows::Row;
use super::run::Run;

pub use super::harness_rows::shown;

pub fn whole(run: &Run) -> String {
    format!("\n{}\n\n{}\n{}\n{}", heading(run), goals(run), cases(run), absent(run))
}

/// One paragraph.
pub fn heading(run: &Run) -> String {
    let (machine, busy) = (&run.machine, &run.busy);
    let dirty = if run.build.dirty { " with changes that are in no commit" } else { "" };
    let rounds = run.rounds.map(|rounds| format!(", {rounds} rounds")).unwrap_or_default();
    format!(
        "{}, commit {}{dirty}: {} × {}, {} GiB, Linux {}; {} s{rounds}; load average {:.2} before and {:.2} after, {:.1} % of the \
         processors' time stolen.",
        run.day(),
        run.build.commit,
        machine.processors,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        busy.seconds,
        busy.load_before,
        busy.load_after,
        busy.steal_percent
    )
}

pub fn goals(run: &Run) -> String {
    let mut text = "| what | goal | measured | spread | reached |\n|---|---|---|---|---|\n".to_owned();
    for judged in &run.goals {
        text += &goal(judged);
    }
    text
}

fn goal(judged: &Judged) -> String {
    let Judged { what, goal, .. } = judged;
    match &judged.measured {
        Some(row) => {
            let reached = if judged.reached == Some(true) { "yes" } else { "**no**" };
            format!("| {what} | {goal} | {} {} | {} | {reached} |\n", shown(row.median), row.unit, spread(row))
        }
        None => format!("| {what} | {goal} | not measured: {} | | |\n", judged.why.as_deref().unwrap_or_default()),
    }
}

fn spread(row: &Row) -> String {
    if row.least == row.most { String::new() } else { format!("{} to {}", shown(row.least), shown(row.most)) }
}

/// Case by case, each with its figures in the order in which they were told.
pub fn cases(run: &Run) -> String {
    let mut cases: Vec<(&str, String)> = Vec::new();
    for row in &run.rows {
        let (case, figure) = row.parts();
        let spread = spread(row);
        let spread = if spread.is_empty() { spread } else { format!(" ({spread})") };
        let told = format!("{figure} {} {}{spread}", shown(row.median), row.unit);
        match cases.iter_mut().find(|(known, _)| *known == case) {
            Some((_, figures)) => *figures += &format!("; {told}"),
            None => cases.push((case, told)),
        }
    }
    let mut text = "| case | median, and spread over the runs |\n|---|---|\n".to_owned();
    for (case, figures) in cases {
        text += &format!("| {case} | {figures} |\n");
    }
    text
}

pub fn absent(run: &Run) -> String {
    let lines = run.absent.iter().map(|absent| format!("- not measured: {}: {}\n", absent.row, absent.why));
    lines.collect()
}
