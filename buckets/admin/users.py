"""Who may log in, and as what: Django's pages, without a way to become more than one is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User

from buckets import services
from buckets.accounts import roles
from buckets.admin.base import LightPages, actor
from buckets.admin.forms import M, ModelForm
from buckets.pages import badges

if TYPE_CHECKING:
    from django.db.models import ManyToManyField, QuerySet
    from django.http import HttpRequest

    DjangosUserAdmin = UserAdmin[User]
    ManyOf = forms.ModelMultipleChoiceField
else:  # generic for type checkers only
    DjangosUserAdmin = UserAdmin

    class ManyOf(forms.ModelMultipleChoiceField, Generic[M]): ...


_DISABLED = badges.badge("paused", "disabled")

admin.site.unregister(Group)
admin.site.unregister(User)


@admin.register(User)
class PersonAdmin(LightPages, DjangosUserAdmin):
    list_display = (
        "username",
        "in_groups",
        "status",
        "rights",
        "factor",
        "seen",
    )
    list_filter = ("groups", "is_active", "is_superuser")
    actions = ("remove_second_factors",)
    search_help_text = "Search names and e-mail addresses"
    filter_horizontal = ()
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        # Not `user_permissions`: rights of one person alone are a surprise later.
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2", "groups")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        # Not the stand-ins under which programs and commands are in the history (`audit`).
        people = super().get_queryset(request).exclude(username__contains=" ")
        return people.select_related("second_factor").prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fields = ("last_login", "date_joined")
        if _is_superuser(request):
            return fields
        return (*fields, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        obj.is_staff = obj.is_staff or not change  # there is nothing here but the admin
        super().save_model(request, obj, form, change)

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        kwargs["widget"] = forms.CheckboxSelectMultiple(attrs={"class": "checks"})
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def formfield_for_dbfield(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and db_field.name == "groups":
            field.widget.can_add_related = False  # groups have a page of their own
        return field

    @admin.display(description="last log-in", ordering="last_login")
    def seen(self, person: User) -> str:
        return badges.moment(person.last_login)

    @admin.display(description="groups", empty_value="none")
    def in_groups(self, person: User) -> str:
        return ", ".join(group.name for group in person.groups.all())

    @admin.display(description="status", ordering="is_active")
    def status(self, person: User) -> str:
        return badges.badge("watched", "active") if person.is_active else _DISABLED

    @admin.display(description="rights", ordering="is_superuser")
    def rights(self, person: User) -> str:
        return "all (superuser)" if person.is_superuser else "as of the groups"

    @admin.display(description="second factor", ordering="second_factor", empty_value="none")
    def factor(self, person: User) -> str:
        return badges.badge("watched", "set up") if hasattr(person, "second_factor") else ""

    @admin.action(description="Remove second factor of selected users", permissions=["change"])
    def remove_second_factors(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        touched = [person for person in queryset if _may_touch(request, person)]
        removed = [services.remove_second_factor(user=p, by=actor(request)) for p in touched]
        self.message_user(request, f"{sum(removed)} removed.", messages.SUCCESS)


class Permissions(ManyOf[Permission]):
    """The permissions for models that have a page, in a few words each."""

    def __init__(self) -> None:
        internal = ("outbox", "permission", "revision", "secondfactor", "vaultremoval")
        offered = Permission.objects.select_related("content_type").filter(
            content_type__app_label__in=("auth", "buckets")
        )
        super().__init__(
            offered.exclude(content_type__model__in=internal),
            required=False,
            widget=forms.CheckboxSelectMultiple(attrs={"class": "checks in-fours"}),
        )

    def label_from_instance(self, obj: Any) -> str:
        return _in_words(obj)


class RoleForm(ModelForm[Group]):
    permissions = Permissions()

    class Meta:
        model = Group
        fields = ("name", "permissions")


@admin.register(Group)
class RoleAdmin(LightPages, GroupAdmin):
    """Groups; those that come with bucketwatch stay as they are."""

    form = RoleForm
    filter_horizontal = ()

    def get_fields(self, request: HttpRequest, obj: Group | None = None) -> Any:
        may_change = self.has_change_permission(request, obj)
        return ("name", "permissions" if may_change or obj is None else "allows")

    def get_readonly_fields(self, request: HttpRequest, obj: Group | None = None) -> Any:
        return ("allows",)

    @admin.display(description="permissions", empty_value="none")
    def allows(self, group: Group) -> str:
        return ", ".join(map(_in_words, group.permissions.select_related("content_type")))

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return super().has_change_permission(request, obj) and not _is_role(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_role(obj)


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))


def _may_touch(request: HttpRequest, person: User | None) -> bool:
    """Keep superusers to superusers: else whoever sets passwords could become one."""
    return _is_superuser(request) or person is None or not person.is_superuser


def _in_words(permission: Any) -> str:
    """Write a permission as the pages do, such as "Add API client"."""
    action: str = permission.codename.partition("_")[0]
    return f"{action.capitalize()} {permission.content_type.name}"


def _is_role(group: Group | None) -> bool:
    return group is not None and group.name in roles.ROLES
