//! Users, sources, keys and rights that come and go beside the load. What was answered holds after every kill; what was not is either as it
//! was or as it was asked, and stays so; a key is good for what its rows say at every moment in which somebody answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidelog::types::Applied;

use crate::dice::Dice;
use crate::door::{Door, Failure, ask, ask_json};
use crate::load::INPUT;

/// How long one question is asked again while nobody answers.
const PATIENCE: Duration = Duration::from_secs(60);
const RIGHTS: [&str; 4] = ["None", "ReadOnly", "WriteOnly", "ReadWrite"];
/// Sources of one user at once.
const SOURCES: usize = 4;

/// What there is of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    disabled: bool,
    /// Name and right of each source.
    sources: BTreeMap<u64, (String, String)>,
}

struct Person {
    name: String,
    state: Option<State>,
    /// Keys that we were told, of sources that are there.
    keys: BTreeMap<u64, String>,
    /// Keys that are over.
    old: Vec<String>,
    /// How often each key was shown while its user was disabled: ten wrong looks a minute are all that a key has.
    shown: BTreeMap<u64, u32>,
}

/// See [`Person::shown`].
const SHOWN_WHILE_DISABLED: u32 = 5;

struct People {
    door: Door,
    dice: Dice,
    number: u64,
    done: BTreeMap<&'static str, u64>,
}

/// Changes two users and what they have until it is told to stop; how often it did what.
pub async fn administer(door: Door, dice: Dice, stop: Arc<AtomicBool>) -> BTreeMap<&'static str, u64> {
    let mut people = People { door, dice, number: 0, done: BTreeMap::new() };
    let mut all = ["ann", "ben"].map(|name| Person { name: name.into(), state: None, keys: BTreeMap::new(), old: Vec::new(), shown: BTreeMap::new() });
    while !stop.load(Ordering::SeqCst) {
        let which = people.dice.below(2) as usize;
        people.step(&mut all[which]).await;
        if people.dice.one_in(4) {
            people.look_at_keys(&mut all[which]).await;
        }
        tokio::time::sleep(people.dice.millis(0, 40)).await;
    }
    for person in &mut all {
        let seen = people.observe(person).await;
        assert_eq!(seen, person.state, "{} at the end", person.name);
        people.look_at_keys(person).await;
        for key in &person.old {
            assert!(!people.is_good(key).await, "a key of {} that is over is good", person.name);
        }
    }
    people.done
}

impl People {
    /// Asks until somebody answers.
    async fn get(&self, path: &str, key: Option<&str>) -> Result<Value, Failure> {
        let (began, bearer) = (Instant::now(), key.map(|key| format!("Bearer {key}")));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        loop {
            match ask(&self.door, "GET", path, &headers, b"").await {
                Err(failure) if !["not_found", "unauthenticated"].contains(&failure.code.as_str()) => {
                    assert!(began.elapsed() < PATIENCE, "nobody answers GET {path}: {failure:?}");
                }
                answer => return answer,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_good(&self, key: &str) -> bool {
        self.get("/v1/sessions/current", Some(key)).await.is_ok()
    }

    /// What the broker says of somebody.
    async fn observe(&self, person: &Person) -> Option<State> {
        let user = self.get(&format!("/v1/users/{}", person.name), None).await.ok()?;
        let mut state = State { disabled: user["disabled"] == true, ..State::default() };
        let sources = self.get("/v1/sources?recursion=1", None).await.expect("the sources");
        for source in sources.as_array().expect("a list").iter().filter(|source| source["owner_id"] == user["id"]) {
            let id = source["id"].as_u64().expect("an id");
            let right = self.get(&format!("/v1/streams/{INPUT}/rights/source:{id}"), None).await.expect("a right");
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            state.sources.insert(id, (text(&source["name"]), text(&right["right"])));
        }
        Some(state)
    }

    async fn look_at_keys(&self, person: &mut Person) {
        let enabled = person.state.as_ref().is_some_and(|state| !state.disabled);
        for (source, key) in &person.keys {
            let shown = person.shown.entry(*source).or_default();
            if !enabled && *shown == SHOWN_WHILE_DISABLED {
                continue;
            }
            *shown += u32::from(!enabled);
            assert_eq!(self.is_good(key).await, enabled, "the key of source {source} of {}, which is {:?}", person.name, person.state);
        }
    }

    /// Asks for a change. `None`: it was not answered, or refused before anything was done.
    async fn change(&mut self, what: &'static str, method: &str, path: &str, body: &Value) -> Result<Value, Applied> {
        let answer = ask_json(&self.door, method, path, body).await;
        if answer.is_ok() {
            *self.done.entry(what).or_default() += 1;
        }
        answer.map_err(|failure| failure.applied)
    }

    async fn step(&mut self, person: &mut Person) {
        let seen = self.observe(person).await;
        assert_eq!(seen, person.state, "{} is not as it was left", person.name);
        let path = format!("/v1/users/{}", person.name);
        let Some(before) = person.state.clone() else {
            let made = self.change("users created", "POST", "/v1/users", &json!({"name": person.name})).await;
            return self.settle(person, made.map(drop), None, Some(State::default()), "creating the user").await;
        };
        let ids: Vec<u64> = before.sources.keys().copied().collect();
        let some = ids.get(self.dice.below(ids.len().max(1) as u64) as usize).copied();
        let mut after = before.clone();
        match (self.dice.below(12), some) {
            (0, _) => self.delete_user(person, &path).await,
            (1 | 2, _) => {
                after.disabled = !before.disabled;
                let answer = self.change("users changed", "PATCH", &path, &json!({"disabled": after.disabled})).await;
                self.settle(person, answer.map(drop), Some(before), Some(after), "disabling").await;
            }
            (3, Some(id)) => {
                let answer = self.change("sources deleted", "DELETE", &format!("/v1/sources/{id}"), &json!({})).await;
                after.sources.remove(&id);
                // Its rights go first, in a commit of their own.
                let mut between = before.clone();
                between.sources.get_mut(&id).expect("it is there").1 = "None".into();
                let was = if answer.is_err() && self.observe(person).await.as_ref() == Some(&between) { between } else { before };
                self.settle(person, answer.map(drop), Some(was), Some(after), "deleting a source").await;
                self.forget_keys(person);
            }
            (4 | 5, Some(id)) => self.rotate(person, id).await,
            (6..=9, Some(id)) => {
                let right = RIGHTS[self.dice.below(RIGHTS.len() as u64) as usize];
                after.sources.get_mut(&id).expect("it is there").1 = right.into();
                let path = format!("/v1/streams/{INPUT}/rights/source:{id}");
                let answer = self.change("rights set", "PUT", &path, &json!({"right": right})).await;
                self.settle(person, answer.map(drop), Some(before), Some(after), "setting a right").await;
            }
            _ if ids.len() < SOURCES => self.create_source(person, before).await,
            _ => {}
        }
    }

    /// It is as it was asked, if that was answered; as it was, if it was refused; one of the two otherwise.
    async fn settle(&self, person: &mut Person, answer: Result<(), Applied>, before: Option<State>, after: Option<State>, what: &str) {
        let seen = self.observe(person).await;
        let may_be = match answer {
            Ok(()) => vec![&after],
            Err(Applied::No) => vec![&before],
            Err(Applied::Unknown) => vec![&before, &after],
        };
        assert!(may_be.contains(&&seen), "{what} of {} was answered {answer:?}; before {before:?}, after {after:?}, now {seen:?}", person.name);
        person.state = seen;
    }

    /// Several commits; asked again until it is gone.
    async fn delete_user(&mut self, person: &mut Person, path: &str) {
        let began = Instant::now();
        loop {
            match ask(&self.door, "DELETE", path, &[], b"").await {
                Ok(_) => break,
                Err(failure) if failure.code == "not_found" => break,
                Err(failure) => assert!(began.elapsed() < PATIENCE, "the deletion of {} does not end: {failure:?}", person.name),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        *self.done.entry("users deleted").or_default() += 1;
        person.state = None;
        self.forget_keys(person);
    }

    async fn create_source(&mut self, person: &mut Person, before: State) {
        self.number += 1;
        let name = format!("{} {}", person.name, self.number);
        let made = self.change("sources created", "POST", "/v1/sources", &json!({"name": name, "owner": person.name})).await;
        let seen = self.observe(person).await.expect("the user is there");
        let new: Vec<_> = seen.sources.iter().filter(|(id, _)| !before.sources.contains_key(id)).collect();
        match (made, &new[..]) {
            (Ok(made), [(id, found)]) => {
                assert_eq!((made["id"].as_u64(), &found.0), (Some(**id), &name), "{made}");
                person.keys.insert(**id, made["key"].as_str().expect("a key").into());
            }
            (Err(_), []) | (Err(Applied::Unknown), [_]) => {}
            (made, new) => panic!("creating source {name} was answered {made:?}, and there is {new:?}"),
        }
        person.state = Some(seen);
    }

    async fn rotate(&mut self, person: &mut Person, id: u64) {
        let answer = self.change("keys rotated", "POST", &format!("/v1/sources/{id}/rotate"), &json!({})).await;
        let old = person.keys.remove(&id);
        let enabled = person.state.as_ref().is_some_and(|state| !state.disabled);
        match (answer, old) {
            (Ok(made), old) => {
                person.old.extend(old);
                person.keys.insert(id, made["key"].as_str().expect("a key").into());
            }
            (Err(Applied::No), old) => person.keys.extend(old.map(|old| (id, old))),
            // Whether the old one still is good tells whether there is a new one, if anything can tell.
            (Err(Applied::Unknown), Some(old)) if enabled => {
                if self.is_good(&old).await {
                    person.keys.insert(id, old);
                } else {
                    person.old.push(old);
                }
            }
            (Err(Applied::Unknown), _) => {}
        }
    }

    /// The keys of sources that are gone are over.
    fn forget_keys(&self, person: &mut Person) {
        let there = |id: &u64| person.state.as_ref().is_some_and(|state| state.sources.contains_key(id));
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut person.keys).into_iter().partition(|(id, _)| there(id));
        person.keys = kept;
        person.old.extend(gone.into_values());
    }
}
