"""Where a gram of CO2 comes from: tables, the user, a live service, and never a guess."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from joulefront.search.carbon.intensity import Intensity, given_intensity, grams_co2e, scope_note
from joulefront.search.carbon.zones import choose_intensity, intensity_for, zone_names


@pytest.fixture
def grid_service():
    """A machine-local stand-in for Electricity Maps: answers what `reply` holds and remembers what it was asked."""

    class Service:
        status, reply, asked, tokens = 200, {}, [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            Service.asked.append(self.path)
            Service.tokens.append(self.headers["auth-token"])
            self.send_response(Service.status)
            self.end_headers()
            self.wfile.write(json.dumps(Service.reply).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Service.url = f"http://127.0.0.1:{server.server_port}/latest"
    yield Service
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_unknown_place_has_no_co2_and_no_country():
    assert choose_intensity() is None
    assert grams_co2e(3.6e6, None) is None
    assert grams_co2e(None, intensity_for("FR")) is None


@pytest.mark.parametrize("code", ["FR", "FRA", "fra", "France"])
def test_france_is_found_by_every_name_with_its_source_and_year(code):
    found = intensity_for(code)
    assert found.zone == "FR"
    assert found.grams_per_kwh == pytest.approx(56.039)
    assert (found.year, found.kind, found.scope, found.fallback) == (2023, "average", "lifecycle", None)
    assert "CodeCarbon" in found.source


@pytest.mark.parametrize("code", ["US-OR", "USA-OR", "US-Oregon", "us-oregon"])
def test_oregon_is_converted_from_pounds_per_megawatt_hour(code):
    found = intensity_for(code)
    assert found.zone == "US-OR"
    assert found.grams_per_kwh == pytest.approx(364.963 * 453.59237 / 1000)
    assert found.scope == "direct"


@pytest.mark.slow
def test_table_agrees_with_codecarbon_itself_for_every_country_and_region():
    emissions = pytest.importorskip("codecarbon.core.emissions")
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    theirs = emissions.Emissions(DataSource())
    one = Energy.from_energy(kWh=1)
    mix = DataSource().get_global_energy_mix_data()
    for code, row in mix.items():
        kilograms = theirs.get_country_emissions(one, GeoMetadata(country_iso_code=code, country_name=row["country_name"]))
        assert intensity_for(code).grams_per_kwh == pytest.approx(1000 * kilograms)
    for country, region, ours in [
        ("USA", "oregon", "US-OR"), ("USA", "wyoming", "US-WY"), ("CAN", "quebec", "CA-QC"), ("CAN", "alberta", "CA-AB"),
        ("CHN", "beijing", "CN-BJ"), ("SWE", "SE3", "SE-SE3"), ("NOR", "NO4", "NO-NO4"),
    ]:  # fmt: skip
        kilograms = theirs.get_region_emissions(one, GeoMetadata(country_iso_code=country, country_name=country, region=region))
        assert intensity_for(ours).grams_per_kwh == pytest.approx(1000 * kilograms, rel=1e-5), ours


def test_every_zone_of_the_tables_has_a_finite_factor_and_a_source():
    zones = sorted(set(zone_names().values()))
    assert len(zones) > 300
    for found in map(intensity_for, zones):
        assert 0 <= found.grams_per_kwh < 2000
        assert found.source
        assert found.region
        assert intensity_for(found.zone) == found


def test_unknown_zone_names_near_ones_and_never_falls_back_silently():
    with pytest.raises(ValueError, match="did you mean FR"):
        intensity_for("Frnace")
    with pytest.raises(ValueError, match="no such region of FR"):
        intensity_for("FR-IDF")
    with pytest.raises(ValueError, match=r"regions alone \(gcp:us-east1\); use the state or country"):
        intensity_for("us-east-1")
    with pytest.raises(ValueError, match="zone must be a text, got 5"):
        intensity_for(5)
    assert (intensity_for("UK").zone, intensity_for("EL").zone) == ("GB", "GR")  # as the EU writes them
    assert "Tibet" not in (intensity_for("CN-XZ").region or "")
    assert "no factor is published for CN-XZ" in intensity_for("CN-XZ").fallback


def test_world_average_must_be_requested_and_is_flagged():
    world = intensity_for("WORLD")
    assert world.grams_per_kwh == 475
    assert "no place" in world.fallback


@pytest.mark.slow
def test_reading_the_tables_imports_neither_codecarbon_nor_pandas():
    code = (
        "import sys; from joulefront.search.carbon.zones import intensity_for; intensity_for('FR');"
        "print([name for name in ('codecarbon', 'pandas', 'pycountry', 'requests') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_co2_of_one_kwh_is_the_factor_times_pue():
    assert grams_co2e(3.6e6, Intensity(56.0)) == pytest.approx(56)
    assert grams_co2e(3.6e6, Intensity(56.0), pue=1.5) == pytest.approx(84)
    assert grams_co2e(0.0, Intensity(56.0)) == 0.0


@pytest.mark.parametrize(("joules", "pue", "match"), [(-1.0, 1.0, "joules"), (float("nan"), 1.0, "joules"), (1.0, 0.9, "pue")])
def test_broken_energy_and_pue_below_one_are_refused(joules, pue, match):
    with pytest.raises(ValueError, match=match):
        grams_co2e(joules, Intensity(56.0), pue)


def test_location_alone_changes_co2_by_the_ratio_of_the_factors():
    # Xu et al. 2023, implied factors of Oregon and Taipei: the same training, 3.84 times the CO2.
    oregon, taipei = Intensity(138.7), Intensity(532.8)
    assert grams_co2e(2e5, taipei) / grams_co2e(2e5, oregon) == pytest.approx(3.84, abs=0.005)


def test_users_number_wins_over_the_place_and_keeps_it():
    found = choose_intensity("56", "US-OR")
    assert (found.grams_per_kwh, found.zone, found.source) == (56.0, "US-OR", "given by the user")
    with pytest.raises(ValueError, match="--zone"):
        given_intensity("FR")
    with pytest.raises(ValueError, match=">= 0"):
        given_intensity("-3")


def test_intensity_survives_json_and_different_scopes_are_named():
    found = intensity_for("US-OR")
    assert Intensity.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert scope_note(map(intensity_for, ["FR", "TW"])) is None
    assert "direct, lifecycle" in scope_note(map(intensity_for, ["FR", "US-OR"]))


@pytest.mark.parametrize(("network", "token"), [(False, None), (False, "secret"), (True, None), (True, "")])
def test_no_socket_is_opened_without_both_token_and_permission(monkeypatch, network, token):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert choose_intensity(zone="FR", network=network, token=token) == intensity_for("FR")


def test_live_value_is_used_and_named_when_requested(grid_service):
    grid_service.reply = {
        "zone": "FR", "carbonIntensity": 31, "datetime": "2025-06-01T12:00:00.000Z", "emissionFactorType": "lifecycle", "isEstimated": True,
    }  # fmt: skip
    found = choose_intensity(zone="FRA", network=True, token="secret", url=grid_service.url)
    assert (found.grams_per_kwh, found.zone, found.year, found.scope) == (31.0, "FR", 2025, "lifecycle")
    assert "Electricity Maps" in found.source
    assert "estimated" in found.fallback
    assert grid_service.asked[-1].endswith("?zone=FR")
    assert grid_service.tokens[-1] == "secret"


@pytest.mark.parametrize(
    ("status", "reply"), [(401, {"error": "bad token"}), (200, {"zone": "FR"}), (200, {"carbonIntensity": None}), (200, [])]
)
def test_live_failure_falls_back_to_the_table_with_the_reason(grid_service, status, reply):
    grid_service.status, grid_service.reply = status, reply
    found = choose_intensity(zone="FR", network=True, token="secret", url=grid_service.url)
    assert found.grams_per_kwh == intensity_for("FR").grams_per_kwh
    assert "Electricity Maps gave no number" in found.fallback


def test_live_failure_with_a_zone_the_table_lacks_is_an_error(grid_service):
    grid_service.status = 500
    with pytest.raises(ValueError, match="cannot stand in"):
        choose_intensity(zone="US-CAL-CISO", network=True, token="secret", url=grid_service.url)


def test_google_regions_state_no_year_rather_than_a_made_up_one():
    assert intensity_for("gcp:europe-west1").year is None
