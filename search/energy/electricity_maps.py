"""The live carbon intensity of a grid from Electricity Maps; asked only with a token and with leave to use the network."""

from __future__ import annotations

import json

from .zones import Factor

# Source: Electricity Maps API v3, "carbon-intensity/latest".
URL = "https://api.electricitymaps.com/v3/carbon-intensity/latest"


def live_intensity(zone: str, *, token: str | None, network: bool, url: str = URL, timeout_seconds: float = 10.0) -> Factor:
    """Ask Electricity Maps for the present average intensity of a zone, in gCO2e/kWh.

    Args:
        zone: A zone of Electricity Maps: ``FR``, ``US-CAL-CISO``, ``SE-SE3``.
        token: The user's API token.
        network: The user allowed network access; False refuses before any socket is made.
        url: Address of the service; a test points it at its own machine.
        timeout_seconds: How long to wait for the answer.

    Returns:
        The factor; ``fallback`` says when Electricity Maps itself estimated it.

    Raises:
        PermissionError: `network` is False or `token` is missing.
        OSError: The service could not be reached or refused.
        ValueError: The answer has no usable number.
    """
    if not network:
        raise PermissionError("the live carbon intensity needs the network, which is off; allow it with --network")
    if not token:
        raise PermissionError(
            "the live carbon intensity needs an Electricity Maps token; pass one, or use --zone alone for the offline table"
        )
    # Imported here: the HTTP client costs 40 ms, and almost nobody asks live.
    from urllib.error import HTTPError
    from urllib.parse import urlencode
    from urllib.request import Request, urlopen

    request = Request(f"{url}?{urlencode({'zone': zone})}", headers={"auth-token": token})
    try:
        with urlopen(request, timeout=timeout_seconds) as answer:
            data = json.load(answer)
    except HTTPError as error:
        with error:
            detail = error.read(200).decode("utf-8", "replace")
        raise OSError(f"Electricity Maps refused zone {zone!r}: HTTP {error.code} {detail}".strip()) from None
    grams = data.get("carbonIntensity") if isinstance(data, dict) else None
    if isinstance(grams, bool) or not isinstance(grams, int | float) or grams < 0:
        raise ValueError(f"Electricity Maps sent no carbonIntensity for zone {zone!r}, but {data!r}")
    moment = str(data.get("datetime", ""))
    year = int(moment[:4]) if moment[:4].isdigit() else None
    scope = str(data.get("emissionFactorType", "unknown"))
    estimated = "Electricity Maps estimated this value, it was not yet measured" if data.get("isEstimated") else None
    return Factor(
        float(grams),
        str(data.get("zone", zone)),
        f"Electricity Maps, live at {moment or 'an unstated time'}",
        year,
        scope if scope in ("lifecycle", "direct") else "unknown",
        f"grid zone {data.get('zone', zone)}",
        estimated,
    )
