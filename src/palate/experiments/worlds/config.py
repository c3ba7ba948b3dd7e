"""`WorldConfig`: every assumption of a world, each with its unit. None of them is a finding about real people."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WorldConfig(BaseModel):
    """What is planted. Logits are of the chance that a place that was looked at is taken.

    A place k (from 0) holding item i of main interest c is taken by person p on day t with the chance
    look(k) · σ(base + taste · Σ_m w_im A[p, m] + appeal_i + trend_it - satiation · s_pc - repeat_cost · [i among the
    last taken] - novelty_cost · 2^(-n_pc / familiarity)), and what is taken satisfies with the chance
    σ(content + taste · Σ_m w_im A[p, m] + appeal_i). A is 0 where the person has no such interest, s_pc is what was
    lately taken of interest c, n_pc how often it was taken at all; w are an item's two nearest interests. What was not
    met yet costs the same, liked or not: only having met it tells the person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int = Field(default=2000, ge=2, description="people there at the beginning")
    arrivals: float = Field(default=0.004, ge=0, description="new people a day, as a share of `people`")
    items: int = Field(default=2400, ge=2, description="items there at the beginning")
    new_items: float = Field(default=0.004, ge=0, description="new items a day, as a share of `items`")
    interests: int = Field(default=240, ge=2, description="latent interests of the catalogue")
    themes: int = Field(default=16, ge=1, description="groups of interests that look alike")
    dimensions: int = Field(default=24, ge=2, description="of the content space")
    spread: float = Field(default=0.3, ge=0, description="standard deviation of items around their interest (of 1)")
    second: float = Field(default=0.25, ge=0, lt=1, description="weight of an item's second nearest interest")
    view_noise: float = Field(
        default=0.4, ge=0, description="standard deviation, over the vector's length, of what policies see beside truth"
    )

    tastes: float = Field(default=20.0, ge=1, description="mean number of a person's interests, known or not")
    unknown: float = Field(default=0.6, ge=0, lt=1, description="share of a person's interests not yet known to them")
    related: float = Field(default=0.8, ge=0, le=1, description="chance that an interest follows from an earlier one")
    links: int = Field(default=4, ge=1, description="interests that one leads to")
    surprise: float = Field(default=0.5, ge=0, le=1, description="share of links that do not lead to what looks alike")
    interest_power: float = Field(default=0.6, ge=0, description="Zipf exponent of the interests' popularity")

    base: float = Field(default=-0.9, description="logit of a known interest that is not liked, of mean appeal")
    taste: float = Field(default=2.2, ge=0, description="logit of an affinity of 1")
    content: float = Field(default=-0.6, description="logit that what was taken satisfies, without affinity")
    appeal: float = Field(default=0.4, ge=0, description="standard deviation of items' own logits")
    trend: float = Field(default=0.4, ge=0, description="standard deviation of the popularity of the day, a logit")
    trend_memory: float = Field(default=0.8, ge=0, lt=1, description="correlation of a day's popularity with the next")
    item_power: float = Field(default=0.8, ge=0, description="Zipf exponent of what was taken before the first day")
    novelty_cost: float = Field(default=1.0, ge=0, description="logit lost by an interest never met")
    familiarity: float = Field(default=2.0, gt=0, description="items taken that halve the cost of novelty")
    satiation: float = Field(default=0.25, ge=0, description="logit lost for each item lately taken of an interest")
    satiation_half_life: float = Field(default=1.5, gt=0, description="days after which one taken counts half")
    repeat_cost: float = Field(default=3.0, ge=0, description="logit lost by an item among the last taken")
    position_bias: float = Field(default=0.15, ge=0, description="a place k is looked at with (1 + k)^-this (PBM)")

    places: int = Field(default=30, ge=1, description="length of a slate")
    looks: float = Field(default=40.0, gt=0, description="mean places of a session after which a person goes")
    sessions: float = Field(default=3.0, ge=1, description="mean sessions of a visiting day")
    most_sessions: int = Field(default=12, ge=1, description="sessions of a day, at most")
    activity: float = Field(default=0.9, ge=0, description="standard deviation of the log of people's sessions")
    visit: float = Field(default=-0.2, description="logit of a visit on a day, in the mood of the beginning")
    visit_spread: float = Field(default=1.0, ge=0, description="standard deviation of that logit over people")
    visit_gain: float = Field(default=8.0, ge=0, description="logit of a visit for a mood better by 1")
    mood: float = Field(
        default=0.2, ge=0, le=1, description="satisfied share of the places looked at, expected at first"
    )
    mood_memory: float = Field(default=0.7, ge=0, lt=1, description="weight of the past in the mood, for each session")
    leave: float = Field(default=0.004, ge=0, le=1, description="chance to leave for good after a visit, in that mood")
    leave_gain: float = Field(default=12.0, ge=0, description="log of that chance for a mood worse by 1")

    before: float = Field(default=12.0, ge=0, description="mean items taken before the first day, of what is known")
    before_spread: float = Field(default=0.6, ge=0, description="standard deviation of their log over people")
    newcomers: float = Field(default=3.0, ge=0, description="mean items that a person who arrives later brings along")
    repeat: float = Field(default=0.0, ge=0, lt=1, description="share of earlier items among what was taken before")
    history: int = Field(default=40, ge=1, description="latest items taken that policies are shown of a person")
