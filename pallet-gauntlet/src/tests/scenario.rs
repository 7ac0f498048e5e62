//! Every call has its place in the scenario, and its page names it.

use frame_support::traits::GetCallName;

use crate::{mock::Test, Call};

/// The only call that the scenario cannot make: a chain that asks for every chunk takes no malformed one.
const TOLD: [&str; 1] = ["report_malformed"];

/// The text of each call's page, in the order of the source.
fn pages() -> Vec<(&'static str, &'static str)> {
    let source = include_str!("../lib.rs");
    let (_, calls) = source.split_once("#[pallet::call]").unwrap();
    let (calls, _) = calls.split_once("#[pallet::view_functions]").unwrap();
    let mut pages = Vec::new();
    for part in calls.split("\n        }\n") {
        if let Some((page, code)) = part.split_once("        pub fn ") {
            pages.push((code.split_once('(').unwrap().0, page));
        }
    }
    pages
}

/// The scene in which the scenario makes a call.
fn scene_of(name: &str) -> Option<usize> {
    let scenario = include_str!("../scenario.rs");
    let mut scenes = scenario.split("//! // Scene ").skip(1);
    let made = format!("Gauntlet::{name}(");
    scenes.position(|scene| scene.contains(&made)).map(|place| place + 1)
}

#[test]
fn every_call_is_made_in_the_scene_that_its_page_names() {
    let pages = pages();
    let names: Vec<&str> = pages.iter().map(|(name, _)| *name).collect();
    for name in Call::<Test>::get_call_names() {
        assert!(names.contains(name), "{name} has no page");
    }
    for (name, page) in pages {
        let scene = if TOLD.contains(&name) { Some(4) } else { scene_of(name) };
        let scene = scene.unwrap_or_else(|| panic!("the scenario does not call {name}"));
        let named = format!("/// Scene {scene} of [the scenario](crate::scenario).");
        assert!(page.contains(&named), "the page of {name} does not say: {named}");
    }
}
