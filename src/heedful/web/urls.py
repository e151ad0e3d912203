"""Which view answers which address."""

from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.urls import path

from heedful.web.labelling.api import routes
from heedful.web.labelling.views import account, label, manage, people
from heedful.web.runs.views import chat, pages

urlpatterns = [
    path("", label.home, name="home"),
    path("login/", auth.LoginView.as_view(template_name="labelling/login.html"), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("join/<str:token>/", login_not_required(account.join), name="join"),
    path("profile/", account.profile, name="profile"),
    path("profile/password/", account.change_password, name="change-password"),
    path("api/", routes()),
    path("project/<slug:slug>/instructions/", label.instructions, name="instructions"),
    path("project/<slug:slug>/", label.label, name="label"),
    path("project/<slug:slug>/skip/", label.skip, name="skip"),
    path("manage/", manage.projects, name="projects"),
    path("manage/log/", manage.log, name="log"),
    path("manage/people/", people.everybody, name="people"),
    path("manage/people/invite/", people.invite_admin, name="invite-admin"),
    path("manage/people/revoke/<int:invitation>/", people.revoke_admin, name="revoke-admin"),
    path("manage/labeler/<int:labeler>/", people.person, name="person"),
    path("manage/labeler/<int:labeler>/password/", people.password_link, name="password-link"),
    path("manage/labeler/<int:labeler>/unlock/", people.unlock, name="unlock"),
    path("manage/labeler/<int:labeler>/active/", people.let_in, name="let-in"),
    path("manage/labeler/<int:labeler>/token/<int:number>/revoke/", people.revoke_token, name="revoke-token"),
    path("manage/labeler/<int:labeler>/delete/", people.delete, name="delete-labeler"),
    path("manage/project/<slug:slug>/", manage.project, name="project"),
    path("manage/project/<slug:slug>/invite/", manage.invite, name="invite"),
    path("manage/project/<slug:slug>/revoke/<int:invitation>/", manage.revoke, name="revoke"),
    path("manage/project/<slug:slug>/pause/", manage.pause, name="pause"),
    path("manage/project/<slug:slug>/again/", manage.hand_out_again, name="hand-out-again"),
    path("manage/project/<slug:slug>/log/", manage.project_log, name="project-log"),
    path("manage/project/<slug:slug>/handouts/", manage.handouts, name="handouts"),
    path("manage/project/<slug:slug>/instructions/", manage.edit_instructions, name="edit-instructions"),
    path("manage/project/<slug:slug>/quality/", manage.quality_page, name="quality"),
    path("manage/project/<slug:slug>/leave-out/<int:labeler>/", people.leave_out, name="leave-out"),
    path("manage/project/<slug:slug>/remove/<int:labeler>/", people.remove, name="remove"),
    path("manage/project/<slug:slug>/judgements.jsonl", manage.export, name="export"),
    path("runs/", pages.listing, name="runs"),
    path("runs/compare/", pages.compare, name="compare-runs"),
    path("runs/show/<path:name>/", pages.run, name="run"),
    path("runs/data/<path:name>/", pages.data, name="run-data"),
    path("runs/answers/<path:name>/", pages.answers_page, name="run-answers"),
    path("runs/chains/<path:name>/", pages.chains_page, name="run-chains"),
    path("runs/report/<path:name>/", pages.report, name="run-report"),
    path("chat/", chat.chats, name="chats"),
    path("chat/votes.zip", chat.votes, name="chat-votes"),
    path("chat/<uuid:chat>/", chat.chat, name="chat"),
    path("chat/<uuid:chat>/turns/", chat.turns, name="chat-turns"),
    path("chat/<uuid:chat>/pending/", chat.pending, name="chat-pending"),
    path("chat/<uuid:chat>/say/", chat.say, name="chat-say"),
    path("chat/<uuid:chat>/delete/", chat.delete, name="chat-delete"),
    path("chat/<uuid:chat>/thumb/<int:reply>/", chat.thumb, name="chat-thumb"),
    path("chat/<uuid:chat>/correct/<int:reply>/", chat.correct, name="chat-correct"),
]
