"""What is said in the chat, and the thumbs and corrections given there. They are never changed: the latest one counts."""

from __future__ import annotations

import uuid

from django.db import models

from heedful.web.labelling.models import User


class Chat(models.Model):
    """With one run's policy, and the base that it came from. Each side has a history of its own answers.

    folder, base: what was loaded, so that the chat goes on with the same models when the run is found no more.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="chats")
    run = models.CharField(max_length=500)
    folder = models.TextField()
    base = models.TextField()
    temperature = models.FloatField(default=0.0)
    max_new_tokens = models.PositiveIntegerField(default=80)
    started_at = models.DateTimeField(auto_now_add=True)


class Turn(models.Model):
    """What a person said. problem: why there is no answer, where there is none."""

    chat = models.ForeignKey(Chat, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveIntegerField()
    said = models.TextField()
    problem = models.TextField(blank=True)
    asked_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["chat", "number"], name="one_turn_a_number"),)
        ordering = ("number",)


class Side(models.TextChoices):
    """Who answers."""

    BASE = "base", "base"
    ALIGNED = "aligned", "aligned"


class Reply(models.Model):
    """What one side answered. version: of the policy."""

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="replies")
    side = models.CharField(max_length=10, choices=Side.choices)
    text = models.TextField(blank=True)
    finished = models.BooleanField()
    version = models.CharField(max_length=200, blank=True)
    answered_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["turn", "side"], name="one_reply_a_side"),)
        ordering = ("-side",)  # base first


class Thumb(models.Model):
    """value: 1 up, 0 down."""

    reply = models.ForeignKey(Reply, on_delete=models.CASCADE, related_name="thumbs")
    labeler = models.ForeignKey(User, on_delete=models.CASCADE, related_name="thumbs")
    value = models.PositiveSmallIntegerField(choices=[(1, "up"), (0, "down")])
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(value__in=(0, 1)), name="a_thumb_is_up_or_down"),)
        ordering = ("pk",)


class Correction(models.Model):
    """What a reply should have been, in a person's words."""

    reply = models.ForeignKey(Reply, on_delete=models.CASCADE, related_name="corrections")
    labeler = models.ForeignKey(User, on_delete=models.CASCADE, related_name="corrections")
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)
