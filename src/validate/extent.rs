//! How much there is of a schema at one place of a value.
//!
//! Judging walks down the schema as far as it goes before it takes a step into the value: through references, choices
//! and what must hold beside. A chain of thousands would overflow the stack, and a few definitions that each choose
//! between two references to the next hold a value to a number of schemas that doubles with every one. No count of steps
//! into the value ends either. So both are measured before a schema is used, and what goes too far is refused.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jsonschema::{Draft, Registry, Uri};
use serde_json::{Map, Value};

/// How many schemas one value may be held to, choices within choices multiplied.
const MOST_LOOKS: u64 = 100_000;

/// How many schemas may lie within one another, or follow one another by reference, at one place of a value.
const LONGEST_WAY: usize = 200;

/// To how many schemas others may lead back at one place of a value. A union whose members each refer to the union, as
/// inheritance is written, has two.
const MOST_LOOPS: usize = 16;

/// So often is a schema gone into before it is noticed that it leads back to itself.
const ROUNDS: u8 = 2;

/// Why a schema is refused, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFar(pub(super) &'static str);

const TOO_DEEP: TooFar = TooFar("schemas lead through too many others before they say anything of what is in a value");
const TOO_MANY: TooFar = TooFar("the choices within choices are too many");
const LOOPS: TooFar = TooFar("schemas lead back to themselves, before they say anything of what is in a value");

/// A schema, and how its references are read.
#[derive(Clone)]
struct Place<'v> {
    schema: &'v Value,
    base: Arc<Uri<String>>,
    draft: Draft,
}

/// A schema is known by where it lies in memory.
type Address = usize;

/// What there is of a schema.
#[derive(Clone, Default)]
struct Extent {
    looks: u64,
    way: usize,
    /// The schemas that something in it leads back to. None once the ways round them were walked.
    loops: Vec<Address>,
}

impl Extent {
    fn add(&mut self, other: &Extent) {
        self.looks = self.looks.saturating_add(other.looks);
        self.way = self.way.max(other.way.saturating_add(1));
        for to in &other.loops {
            if !self.loops.contains(to) {
                self.loops.push(*to);
            }
        }
    }

    fn judge(&self) -> Result<(), TooFar> {
        if self.loops.len() > MOST_LOOPS {
            return Err(LOOPS);
        }
        if self.way > LONGEST_WAY {
            return Err(TOO_DEEP);
        }
        if self.looks > MOST_LOOKS { Err(TOO_MANY) } else { Ok(()) }
    }
}

/// Schemas of one registry, measured once each.
pub(super) struct Extents<'v, 'r> {
    registry: &'v Registry<'r>,
    known: HashMap<Address, Extent>,
    under_way: HashSet<Address>,
    /// The schemas that hold for the same value as each.
    here: HashMap<Address, Vec<Address>>,
    /// Schemas of what is in values.
    waiting: Vec<Place<'v>>,
}

/// A schema that is being measured.
struct Under<'v> {
    address: Address,
    rest: Vec<Place<'v>>,
    extent: Extent,
}

impl<'v, 'r> Extents<'v, 'r> {
    pub(super) fn new(registry: &'v Registry<'r>) -> Extents<'v, 'r> {
        Extents {
            registry,
            known: HashMap::new(),
            under_way: HashSet::new(),
            here: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Measures `schema` and all that it leads to. `base`: the name under which the registry has it.
    ///
    /// # Errors
    /// Something goes too far.
    pub(super) fn measure(&mut self, schema: &'v Value, base: &Uri<String>, draft: Draft) -> Result<(), TooFar> {
        self.waiting.push(Place { schema, base: Arc::new(base.clone()), draft });
        while let Some(place) = self.waiting.pop() {
            self.go_down(place)?;
        }
        Ok(())
    }

    /// Goes down from one schema. Without recursion: how deep it goes is what is to be found out.
    fn go_down(&mut self, place: Place<'v>) -> Result<(), TooFar> {
        let mut stack: Vec<Under<'v>> = Vec::new();
        let mut next = Some(place);
        loop {
            if let Some(place) = next.take() {
                let address = std::ptr::from_ref(place.schema).addr();
                match (self.known.get(&address), stack.last_mut()) {
                    (Some(extent), Some(above)) => above.extent.add(extent),
                    (Some(extent), None) if extent.loops.is_empty() => return Ok(()),
                    (Some(_), None) => {
                        let extent = self.walk_round(address)?;
                        self.known.insert(address, extent);
                        return Ok(());
                    }
                    (None, Some(above)) if self.under_way.contains(&address) => {
                        above.extent.add(&Extent { looks: 1, way: 0, loops: vec![address] });
                    }
                    (None, _) => {
                        if stack.len() > LONGEST_WAY {
                            return Err(TOO_DEEP);
                        }
                        self.under_way.insert(address);
                        let extent = Extent { looks: 1, ..Extent::default() };
                        let rest = self.here(place);
                        let addresses = rest.iter().map(|place| std::ptr::from_ref(place.schema).addr());
                        self.here.insert(address, addresses.collect());
                        stack.push(Under { address, rest, extent });
                    }
                }
            }
            let Some(top) = stack.last_mut() else { return Ok(()) };
            next = top.rest.pop();
            if next.is_none()
                && let Some(Under { address, mut extent, .. }) = stack.pop()
            {
                self.under_way.remove(&address);
                let leads_back = !extent.loops.is_empty();
                if leads_back && extent.loops.iter().all(|to| !self.under_way.contains(to)) {
                    extent = self.walk_round(address)?;
                }
                extent.judge()?;
                if let Some(above) = stack.last_mut() {
                    above.extent.add(&extent);
                }
                self.known.insert(address, extent);
            }
        }
    }

    /// What there is of a schema in which others lead back to themselves: every way is walked, as judging would.
    fn walk_round(&self, from: Address) -> Result<Extent, TooFar> {
        let mut extent = Extent { looks: 1, ..Extent::default() };
        let mut entered = HashMap::from([(from, 1_u8)]);
        let mut stack = vec![(from, 0_usize)];
        while let Some((at, next)) = stack.last_mut() {
            let Some(to) = self.here.get(at).and_then(|here| here.get(*next)).copied() else {
                entered.entry(*at).and_modify(|times| *times = times.saturating_sub(1));
                stack.pop();
                continue;
            };
            *next = next.saturating_add(1);
            extent.looks = extent.looks.saturating_add(1);
            match self.known.get(&to).filter(|known| known.loops.is_empty()) {
                Some(known) => {
                    extent.looks = extent.looks.saturating_add(known.looks);
                    extent.way = extent.way.max(stack.len().saturating_add(known.way));
                }
                None => {
                    let times = entered.entry(to).or_insert(0);
                    if *times < ROUNDS {
                        *times = times.saturating_add(1);
                        stack.push((to, 0));
                        extent.way = extent.way.max(stack.len());
                    }
                }
            }
            if extent.looks > MOST_LOOKS {
                return Err(LOOPS);
            }
            if extent.way > LONGEST_WAY {
                return Err(TOO_DEEP);
            }
        }
        Ok(extent)
    }

    /// The schemas that hold for the same value; those for what is in it are put on the list.
    fn here(&mut self, place: Place<'v>) -> Vec<Place<'v>> {
        let mut here = Vec::new();
        let Some(object) = place.schema.as_object() else { return here };
        let place = self.within_its_name(place);
        let at = |schema: &'v Value| Place { schema, ..place.clone() };
        for (key, value) in object {
            match key.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    here.extend(value.as_str().and_then(|reference| self.follow(&place, reference)));
                }
                "not" | "if" | "then" | "else" => here.push(at(value)),
                "allOf" | "anyOf" | "oneOf" => here.extend(value.as_array().into_iter().flatten().map(at)),
                "dependentSchemas" | "dependencies" => {
                    here.extend(value.as_object().into_iter().flat_map(Map::values).map(at));
                }
                "properties" | "patternProperties" => {
                    self.waiting.extend(value.as_object().into_iter().flat_map(Map::values).map(at));
                }
                "items"
                | "additionalItems"
                | "prefixItems"
                | "contains"
                | "additionalProperties"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties" => match value {
                    Value::Array(list) => self.waiting.extend(list.iter().map(at)),
                    Value::Object(_) => self.waiting.push(at(value)),
                    // Neither says anything that could be deep.
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                },
                _ => {}
            }
        }
        here
    }

    /// References in a schema that has a name are relative to that.
    fn within_its_name(&self, place: Place<'v>) -> Place<'v> {
        let draft = place.draft.detect(place.schema);
        let name = draft.create_resource_ref(place.schema).id().map(str::to_owned);
        let base = name.and_then(|name| self.registry.resolve_uri(&place.base.borrow(), &name).ok());
        Place { base: base.unwrap_or(place.base), draft, ..place }
    }

    /// `None`: it leads nowhere, of which compiling tells.
    fn follow(&self, from: &Place<'v>, reference: &str) -> Option<Place<'v>> {
        let resolved = self.registry.resolver(from.base.as_ref().clone()).lookup(reference).ok()?;
        let base = resolved.resolver().base_uri();
        let (schema, _, draft) = resolved.into_inner();
        Some(Place { schema, base, draft })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::{Formats, Schema, Surroundings, Unusable};
    use super::*;

    fn compile(schema: &Value) -> Result<Schema, Unusable> {
        Schema::compile(schema, Surroundings::default(), Formats::Assert)
    }

    fn unusable(schema: &Value) -> Unusable {
        compile(schema).expect_err("no schema")
    }

    /// A schema of `length` others, each made of a reference to the next.
    fn chain(length: usize, of: impl Fn(usize, Value) -> Value) -> Value {
        let of = |index: usize| of(index, json!({"$ref": format!("#/$defs/{}", index + 1)}));
        let mut all: Map<String, Value> = (0..length).map(|index| (index.to_string(), of(index))).collect();
        all.insert(length.to_string(), json!({"type": "object"}));
        json!({"$defs": all, "$ref": "#/$defs/0"})
    }

    #[test]
    fn chains_of_references_are_compiled_or_refused_however_long_they_are() {
        let run = || {
            let long = chain(10_000, |_, next| json!({"properties": {"a": next}}));
            assert!(compile(&long).unwrap().accepts(&json!({"a": {"a": {}}})));
            // Each with a name of its own, to which the next is relative.
            let named = chain(
                2000,
                |index, _| json!({"$id": format!("urn:x:{index}"), "properties": {"a": {"$ref": format!("urn:x:{}", (index + 1) % 2000)}}}),
            );
            assert!(compile(&named).unwrap().accepts(&json!({"a": {"a": {}}})));
            for (length, of) in [
                (10_000, (|_, next| next) as fn(usize, Value) -> Value),
                (30_000, |_, next| next),
                (10_000, |_, next| json!({"allOf": [next]})),
                (10_000, |_, next| json!({"anyOf": [true, next]})),
                (300, |_, next| json!({"dependencies": {"a": next}})),
            ] {
                assert!(unusable(&chain(length, of)).what.contains("too many others"));
            }
            assert!(unusable(&chain(40, |_, next| json!({"anyOf": [next, next]}))).what.contains("choices"));
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }

    /// As discriminated models are written: the union of all, each of which has what the union has.
    #[test]
    fn inheritance_is_taken_from_wherever_it_is_looked_at() {
        let family = |count: usize, first: &str| {
            let child = |index: usize| json!({"allOf": [{"$ref": "#/$defs/union"}, {"properties": {"kind": {"const": index}}, "required": ["kind"]}]});
            let all: Vec<Value> = (0..count).map(|index| json!({"$ref": format!("#/$defs/{index}")})).collect();
            let mut definitions: Map<String, Value> =
                (0..count).map(|index| (index.to_string(), child(index))).collect();
            definitions.insert("union".to_owned(), json!({"type": "object", "oneOf": all}));
            json!({"$defs": definitions, "$ref": format!("#/$defs/{first}")})
        };
        for first in ["union", "0", "59"] {
            let began = std::time::Instant::now();
            let compiled = compile(&family(60, first)).unwrap_or_else(|unusable| panic!("{first}: {unusable:?}"));
            assert!(!compiled.accepts(&json!([])), "{first}");
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "{first}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn schemas_that_lead_back_to_themselves_are_refused_where_there_are_many_ways_round() {
        let each = |count: usize| {
            let all: Vec<Value> = (0..count).map(|index| json!({"$ref": format!("#/$defs/{index}")})).collect();
            let all: Map<String, Value> = (0..count).map(|index| (index.to_string(), json!({"anyOf": all}))).collect();
            json!({"$defs": all, "$ref": "#/$defs/0"})
        };
        assert!(compile(&each(2)).unwrap().accepts(&json!(1)));
        for count in [5, 30, 300] {
            assert!(unusable(&each(count)).what.contains("lead"), "{count}");
        }
    }
}
