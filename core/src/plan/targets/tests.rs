//! What the files say holds together.

use super::*;
use crate::plan::{Choice, Set, preset};

#[test]
fn every_file_is_read_and_every_rule_has_a_source_and_ways_out_that_parse() {
    assert_eq!(all().len(), FILES.len());
    for (target, file) in all().iter().zip(FILES) {
        let written: serde_json::Value = serde_json::from_str(file).expect("json");
        assert_eq!(serde_json::to_value(target).expect("json"), written, "{}: nothing is lost", target.name);
        assert!(!target.run.how.is_empty() && (target.run.here || target.run.how.starts_with("rules only, not run")));
        let rules = target.rules.iter().map(|rule| (&rule.id, &rule.source));
        let rules: Vec<_> = rules.chain(target.needs.iter().map(|rule| (&rule.id, &rule.source))).collect();
        for (id, source) in &rules {
            assert!(source.url.starts_with("https://") && !source.section.is_empty(), "{} {id}", target.name);
            assert_eq!(rules.iter().filter(|(other, _)| other == id).count(), 1, "{} {id}", target.name);
        }
        for rule in &target.rules {
            assert!(!rule.fix.is_empty(), "{} {}", target.name, rule.id);
            for fix in &rule.fix {
                fix.parse::<Set>().unwrap_or_else(|error| panic!("{} {}: {error}", target.name, rule.id));
            }
        }
    }
}

#[test]
fn names_are_known_and_others_are_refused_with_the_list() {
    assert_eq!(target("").expect("default").name, "onnxruntime-cpu-vnni");
    let error = target("edge-tpu").unwrap_err();
    assert!(error.to_string().contains("edge-tpu"));
    assert!(all().iter().all(|target| error.hint().contains(&target.name)));
}

#[test]
fn a_plan_remembers_its_target_and_old_plans_load() {
    let mut plan = preset("int8").expect("preset").plan();
    let old = plan.to_json();
    assert!(!old.contains("target") && !old.contains("reduce_range"));
    plan.target = "tensorrt".to_owned();
    plan.set_layer("fc", Choice { reduce_range: true, ..plan.default });
    let read = Plan::from_json(plan.to_json().as_bytes()).expect("plan");
    assert_eq!((read.target().expect("target").name.as_str(), &read), ("tensorrt", &plan));
    assert!(read.choice("fc").reduce_range);
    assert_eq!(Plan::from_json(old.as_bytes()).expect("plan").target, "");
    plan.target = "from-the-future".to_owned();
    assert_eq!(plan.target().expect("default").name, "onnxruntime-cpu-vnni");
    assert!(plan.problems(&["fc"]).iter().any(|problem| problem.place == "from-the-future"));
}
