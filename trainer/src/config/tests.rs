//! Reading, overriding and refusing configurations.

use super::*;

const MINIMAL: &str = "name = \"t\"\n[training]\nsteps = 10\n[model]\ncontext_bytes = 32\nembedding_dim = 16\n\
                       d_model = 16\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"\n";

fn overridden(set: &[&str]) -> grug::error::Result<RunConfig> {
    RunConfig::parse(MINIMAL, &set.iter().map(|s| s.to_string()).collect::<Vec<_>>())
}

#[test]
fn every_preset_loads_and_survives_a_round_trip() {
    for preset in PRESETS {
        let run = RunConfig::load(preset.name, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(run.name, preset.name);
        assert!(!preset.summary().is_empty() && preset.toml.starts_with("# "), "{}: no summary", preset.name);
        assert_eq!(RunConfig::from_toml(&run.to_toml()).unwrap(), run, "{}", preset.name);
        let resolved = run.resolved();
        assert_eq!(RunConfig::from_toml(&resolved.to_toml()).unwrap(), resolved, "{}", preset.name);
    }
}

#[test]
fn a_run_with_the_legacy_split_can_be_read_back() {
    let run = overridden(&["data.legacy_split=true"]).unwrap().resolved();
    assert_eq!(RunConfig::from_toml(&run.to_toml()).unwrap(), run);
}

#[test]
fn overrides_win_and_need_no_quotes() {
    let run = overridden(&[
        "training.steps=7",
        "optimizer.type=muon",
        "name = other",
        "data.sources=[\"a\", \"b.txt\"]",
        "model.dropout.output=0.5",
        "training.clip_grad_norm=2",
    ])
    .unwrap();
    assert_eq!(run.training.steps, Some(7));
    assert_eq!(run.optimizer.kind, OptimizerKind::Muon);
    assert_eq!(run.name, "other");
    assert_eq!(run.data.sources, [PathBuf::from("a"), PathBuf::from("b.txt")]);
    assert_eq!(run.model.dropout.output, 0.5);
    assert_eq!(run.training.clip_grad_norm, 2.0);
    for (set, part) in [
        ("training.steps", "KEY=VALUE"),
        ("name.x=1", "name is a value"),
        ("training..steps=1", "empty"),
        ("training.steps=many", "invalid type"),
    ] {
        let error = overridden(&[set]).unwrap_err();
        assert!(error.message().contains(part), "{set}: {error}");
    }
}

#[test]
fn unknown_keys_get_a_suggestion() {
    for (set, suggestion) in [
        ("training.batchsize=3", "batch_size"),
        ("trainign.steps=3", "training"),
        ("model.n_haeds=3", "n_heads"),
        ("optimizer.type=muno", "muon"),
        ("optimizer.learningrate=1", "learning_rate"),
        ("generate.promt=x", "prompt"),
    ] {
        let error = overridden(&[set]).unwrap_err();
        assert!(error.message().contains(&format!("did you mean \"{suggestion}\"")), "{set}: {error}");
    }
    let error = RunConfig::from_toml(&MINIMAL.replace("steps", "stepps")).unwrap_err();
    assert!(error.message().contains("line 3") && error.message().contains("\"steps\""), "{error}");
    let error = RunConfig::load("shakespear", &[]).unwrap_err();
    assert!(error.message().contains("did you mean \"shakespeare\""), "{error}");
    let error = overridden(&["data.qwertyuiop=1"]).unwrap_err();
    assert!(!error.message().contains("did you mean"), "{error}");
}

#[test]
fn contradictions_and_bad_values_are_named() {
    for (set, part) in [
        (&["model.attention=bidirectional", "training.objective=every"][..], "training.objective"),
        (&["schedule.type=plateau", "data.validation_fraction=0"], "validation_fraction"),
        (&["schedule.type=plateau", "training.validate_every=0"], "validate_every"),
        (&["training.early_stop_patience=3", "data.validation_fraction=0"], "early_stop_patience"),
        (&["training.batch_size=6", "training.accumulation=4"], "accumulation"),
        (&["training.batch_size=0"], "batch_size"),
        (&["training.accumulation=0"], "accumulation"),
        (&["training.steps=0"], "steps"),
        (&["data.validation_fraction=1.0"], "validation_fraction"),
        (&["data.legacy_split=true", "data.guard_bytes=3"], "guard_bytes"),
        (&["data.stride=0"], "stride"),
        (&["data.stride=34"], "stride"),
        (&["data.dummy_if_empty=true"], "dummy_if_empty"),
        (&["optimizer.learning_rate=0.0"], "learning_rate"),
        (&["optimizer.learning_rate=nan"], "learning_rate"),
        (&["optimizer.beta2=1.0"], "beta2"),
        (&["optimizer.eps=-1.0"], "eps"),
        (&["schedule.warmup_init_factor=2.0"], "warmup_init_factor"),
        (&["schedule.factor=1.0"], "factor"),
        (&["schedule.t_max=0"], "t_max"),
        (&["training.ema_decay=1.0"], "ema_decay"),
        (&["training.keep_last=0"], "keep_last"),
        (&["guard.sigmas=0.0"], "[guard]: sigmas"),
        (&["guard.window_steps=1"], "window_steps"),
        (&["guard.rollback_after=0"], "rollback_after"),
        (&["guard.lr_factor=1.5"], "lr_factor"),
        (&["sample.temperature=-1.0"], "temperature"),
        (&["generate.top_p=0.0"], "[generate]: top_p"),
        (&["model.n_heads=3"], "[model]: d_model"),
        (&["name=a/b"], "name"),
        (&["name="], "name"),
    ] {
        let error = overridden(set).unwrap_err();
        assert!(error.message().contains(part), "{set:?}: {error}");
    }
    let error = RunConfig::from_toml(&MINIMAL.replace("steps = 10", "")).unwrap_err();
    assert!(error.message().contains("steps or epochs"), "{error}");
}

#[test]
fn defaults_that_depend_are_resolved() {
    let run = overridden(&[]).unwrap();
    assert_eq!((run.objective(), run.stride(), run.guard_bytes()), (Objective::Every, 32, 32));
    assert_eq!(run.prepared_path(), PathBuf::from("runs/t/corpus.bin"));
    assert!(!run.needs_preparation());
    let run = overridden(&["model.attention=bidirectional", "data.sources=[\"folder\"]"]).unwrap();
    assert_eq!((run.objective(), run.stride(), run.validation_stride()), (Objective::Last, 8, 8));
    assert!(run.needs_preparation());
    for only in ["a.txt", "a.bin", "a.npy"] {
        let run = overridden(&[&format!("data.sources=[\"{only}\"]")]).unwrap();
        assert_eq!(run.prepared_path(), PathBuf::from(only));
        assert!(!run.needs_preparation());
    }
}
