from atlas.processes import peer_environment


def test_keys_and_settings_stay_here(monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PATH", "/somewhere")
    found = peer_environment(OMP_NUM_THREADS="2")
    assert found["PATH"] == "/somewhere" and found["OMP_NUM_THREADS"] == "2"
    assert "secret" not in found.values()
