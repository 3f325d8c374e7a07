from benchmarks.upload import GROWTH, MIB, run


def test_an_upload_survives_its_client_and_its_gateway_in_little_memory(tmp_path):
    result = run(tmp_path, 64)
    assert result.resumed, result
    assert result.peaceful.whole and result.disturbed.whole
    assert result.peaceful.grown * MIB <= GROWTH and result.disturbed.grown * MIB <= GROWTH
